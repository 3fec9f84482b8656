"""What a plan needs, looked at before any work starts: its models, their classes, subtypes, and the layouts of its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, LayoutError
from wsigen.cohort.plan import CohortPlan
from wsigen.cohort.slides import CohortSlide
from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle
from wsigen.models.card import BundleCard
from wsigen.run.choose_layout import choose_layout
from wsigen.run.config import RunConfig
from wsigen.run.prepare import slide_mpp


@dataclass(frozen=True, slots=True)
class CohortModel:
    """A bundle of a cohort: what the plan calls it, its folder, its card, the SHA-256 of what it computes."""

    name: str
    folder: Path
    card: BundleCard
    sha256: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What all slides of a cohort share.

    Attributes
    ----------
    models : dict of str to CohortModel
        By the plan's names.
    table : ClassTable
        The classes, the same for all models.
    mpp : float
        um/px of the slides, the same for all.
    cell_px : int
        Side of a cell of the class map, slide px.
    areas : dict of Path to int
        Of drawings and references: px of the slide that is made from each.
    """

    models: dict[str, CohortModel]
    table: ClassTable
    mpp: float
    cell_px: int
    areas: dict[Path, int] = field(default_factory=dict)


def check_slides(slides: list[CohortSlide], source: str) -> Needs:
    """Check what slides are made from; files are read once each.

    Parameters
    ----------
    source : str
        What errors name.

    Raises
    ------
    WsigenError
        A model that is no bundle or disagrees with another one of the cohort, a subtype that nobody can draw, a layout that
        cannot be used.
    """
    configs = {(slide.part, slide.model): slide.config for slide in slides}
    found = {name: _model(name, config) for (_, name), config in configs.items()}
    needs = _agreed(found, configs, source)
    checked: set[object] = set()
    for slide in slides:
        what = (slide.part, slide.subtype if slide.source is None else slide.source, slide.model)
        if what in checked:
            continue
        checked.add(what)
        try:
            area = _check_layout(slide, needs)
        except ConfigError as error:
            raise ConfigError(f"{source}: part {slide.part!r}: {error}") from None
        except LayoutError as error:
            raise LayoutError(f"{source}: part {slide.part!r}: {error}") from None
        if slide.source is not None and area is not None:
            needs.areas[slide.source] = area
    return needs


def _model(name: str, config: RunConfig) -> CohortModel:
    folder = find_bundle(config.model)
    return CohortModel(name, folder, check_bundle(folder), bundle_hash(folder))


def _agreed(models: dict[str, CohortModel], configs: dict[tuple[str, str], RunConfig], source: str) -> Needs:
    """The table and um/px of all parts and models (ConfigError if they differ: one dataset has one table)."""
    first = next(iter(models))
    its = models[first].card
    for name, model in models.items():
        card = model.card
        for what, same in (
            ("classes", card.table == its.table),
            ("px a cell of the class map", card.latent.factor == its.latent.factor),
        ):
            if not same:
                raise ConfigError(f"{source}: models {first!r} and {name!r} have other {what}; make two cohorts of them")
    mpps = {(part, name): slide_mpp(config, models[name].card) for (part, name), config in configs.items()}
    (part, _), mpp = next(iter(mpps.items()))
    for (other, name), its_mpp in mpps.items():
        if its_mpp != mpp:
            raise ConfigError(
                f"{source}: slides of part {part!r} have {mpp:g} um/px, those of part {other!r} by model {name!r} {its_mpp:g}; "
                "make two cohorts of them"
            )
    return Needs(models, its.table, mpp, its.latent.factor)


def _check_layout(slide: CohortSlide, needs: Needs) -> int | None:
    """Whether the layout can be made: a subtype is looked up, a file is read; of a file, the px of its slide."""
    model, config = needs.models[slide.model], slide.config
    if slide.source is not None:
        if config.reference is not None:
            _check_reference(slide.source)
        layout = choose_layout(config, model.folder, needs.table, needs.mpp).layout
        return layout.height * layout.width
    from wsigen.layout.subtypes import choose_subtype, known_subtypes, mixture_of
    from wsigen.models.mask_bundle import find_mask, mask_folder, open_mask

    mask = open_mask(mask_folder(config.mask_model), needs.table) if config.mask_model else None
    if mask is None and config.subtypes is None:
        mask = find_mask(model.folder, needs.table)
    if mask is not None:
        mask.subtype(slide.subtype)
        return None
    known = known_subtypes(needs.table, config.subtypes)
    name = choose_subtype(slide.subtype, {key: key for key in known}, "for this model" if config.subtypes is None else "there")
    mixture_of(name, known[name], needs.table)
    return None


def _check_reference(path: Path) -> None:
    from wsigen.slide.reading import open_image

    open_image(path)


def demand_one_licence(plan: CohortPlan, needs: Needs, source: str) -> None:
    """Refuse models of different licences, unless the plan says which one the cohort has (ConfigError)."""
    licences = {model.card.licence: name for name, model in needs.models.items()}
    if plan.licence is None and len(licences) > 1:
        said = ", ".join(f"{name!r} {licence or '(none)'}" for licence, name in licences.items())
        raise ConfigError(f"{source}: its models have different licences ({said}); say 'licence' of the cohort in the plan")


def demand_licences(plan: CohortPlan, slides: list[CohortSlide], needs: Needs) -> None:
    """Refuse to publish what is made from anything of unknown licence (ConfigError)."""
    for slide in slides if plan.licence is None else ():
        made_from = [name for name in ("reference", "mask_model") if getattr(slide.config, name) is not None]
        if made_from:
            raise ConfigError(
                f"part {slide.part!r}: its {made_from[0].replace('_', ' ')}s say no licence, so the cohort cannot be "
                "published; say 'licence' in the plan, if you know that it may be"
            )
    for model in needs.models.values():
        unknown = [what for what in (model.card.licence, *(d.licence for d in model.card.training_data)) if _unknown(what)]
        if unknown or not model.card.training_data:
            raise ConfigError(
                f"model {model.name!r}: its card ({model.folder.name}/wsigen.yaml) does not say the licence of the model or of "
                "what it was trained on, so a cohort of it cannot be published"
            )


def _unknown(licence: str) -> bool:
    return licence.strip().casefold() in ("", "unknown", "none", "other", "proprietary", "?")
