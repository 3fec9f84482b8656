"""From a configuration to a manifest: every choice made, every input checked, before any work starts."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsigen.base.errors import BundleError, ConfigError, RunError
from wsigen.base.geometry import Box
from wsigen.base.version import __version__
from wsigen.layout.layout import Layout
from wsigen.models.card import BundleCard
from wsigen.run.choose_layout import choose_layout
from wsigen.run.config import RunConfig, check_size
from wsigen.run.engine.queue import is_queue_file
from wsigen.run.manifest import Manifest, first_difference, package_versions
from wsigen.sampling.passes import DEFAULT_TAPER, PassPlan, cascade_scales, default_chunk, default_overlap
from wsigen.sampling.schedule import Schedule, make_schedule
from wsigen.slide.pyramid import PyramidSpec
from wsigen.storage.files import sha256

if TYPE_CHECKING:
    from wsigen.models.model import Model

PLAIN_GLASS = (243, 243, 245)
"""Glass of bundles that do not name their own."""

BATCH = {"cpu": 4, "other": 16}
"""Crops per model call: more does not raise a CPU's throughput and wastes padding; accelerators want to be full."""

_CHUNK_WORKERS = 8
"""Workers the default chunk side provides for. A constant, since the chunk side decides bits and the workers must not."""


@dataclass(frozen=True)
class Prepared:
    """What a run is about to do: its configuration, inputs and manifest."""

    config: RunConfig
    card: BundleCard
    layout: Layout
    manifest: Manifest
    note: str = ""
    """What the user should know of the inputs, in one line."""


def prepare(config: RunConfig, output: Path) -> Prepared:
    """Check every input and make every choice.

    Raises
    ------
    WsigenError
        One line for whatever is wrong with the bundle, the layout, the reference or the settings.
    """
    from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle

    folder = find_bundle(config.model)
    card = check_bundle(folder)
    mpp = _slide_mpp(config, card)
    chosen = choose_layout(config, folder, card.table, mpp)
    layout = chosen.layout
    _check_reference(config)
    spec = _slide(config, layout, mpp)
    model = _load(folder, config)
    plans = _passes(config, card, spec, model)
    guidance = card.guidance if config.guidance is None else config.guidance
    batch = config.batch or BATCH.get(config.device.split(":")[0], BATCH["other"])
    passes = [plan.to_json() for plan in plans]
    sampling = {"guidance": guidance, "sampler": config.sampler, "eta": _eta(config, card), "batch": batch, "seed": config.seed}
    digest = bundle_hash(folder)
    identity = {
        "settings": _settled(config, passes, sampling, spec),
        "model": digest,
        "layout": sha256(config.layout_file) if config.layout_file else None,
        "layout_classes": sha256(config.layout_classes) if config.layout_classes else None,
        "subtypes": sha256(config.subtypes) if config.subtypes else None,
        "sampled_layout": chosen.source,
        "reference": sha256(config.reference) if config.reference else None,
        "device": config.device.split(":")[0],
        "wsigen": __version__,
    }
    manifest = Manifest(
        identity=identity,
        output=str(output.absolute()),
        model=str(folder.absolute()),
        model_hash=digest,
        device=config.device,
        precision=config.precision,
        passes=passes,
        slide=_spec_fields(spec),
        sampling=sampling,
        glass=_glass(card, model),
        inputs={"layout": chosen.title or _absolute(config.layout_file), "reference": _absolute(config.reference)},
        versions=package_versions(),
        settings=_with_absolute_paths(config).model_dump(mode="json"),
        run_id=hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12],
    )
    return Prepared(config, card, layout, manifest, chosen.note)


def class_map_of_chunk(layout: Layout, plan: PassPlan, ij: tuple[int, int]) -> np.ndarray:
    """The class map that conditions one chunk, uint8 ``[h, w]``."""
    return layout.class_map(plan.grid.box(ij), plan.cell_px)


def reread_layout(config: RunConfig, card: BundleCard, manifest: Manifest) -> Layout:
    """The layout of an existing run (``config`` names the kept copies).

    Raises
    ------
    RunError
        If a layout that is drawn again is not the one the run began with.
    """
    size = (manifest.slide["height"], manifest.slide["width"])
    chosen = choose_layout(config, Path(manifest.model), card.table, manifest.slide["mpp"], size)
    difference = first_difference(chosen.source, manifest.identity["sampled_layout"], "sampled_layout")
    if difference:
        raise RunError(f"the layout drawn again is not the run's ({difference}); restore what drew it, or start anew")
    return chosen.layout


# -- inside ------------------------------------------------------------------------------------------------------------


def _slide_mpp(config: RunConfig, card: BundleCard) -> float:
    own = card.levels[0].mpp
    if config.mpp is None and own is None:
        raise ConfigError(f"bundle {card.name!r} does not say its um/px: give the slide's with --mpp")
    if config.mpp is not None and own is not None and abs(config.mpp - own) > 0.01 * own:
        raise ConfigError(
            f"setting 'mpp': {config.mpp}, but bundle {card.name!r} makes images of {own} um/px; leave it out "
            "(--layout-mpp says at which um/px a layout was drawn)"
        )
    return config.mpp if config.mpp is not None else float(own or 0.0)


def _load(folder: Path, config: RunConfig) -> Model:
    from wsigen.run.tasks.context import load_shared_model

    try:
        # With a scheduler the workers have the device; the driver needs only the schedule and the latent of glass.
        device = "cpu" if config.scheduler else config.device
        return load_shared_model(str(folder.absolute()), device, config.precision)
    except (RuntimeError, AssertionError) as error:
        if config.device == "cpu":
            raise BundleError(f"{folder}: the model cannot be loaded ({error})") from None
        raise ConfigError(f"setting 'device': {config.device!r} cannot be used here ({error})") from None


def _check_reference(config: RunConfig) -> None:
    """Read the whole reference once, small, so that a damaged one is refused before the run begins."""
    if config.reference is not None:
        from wsigen.slide.reading import open_image

        open_image(config.reference).region(Box(0, 0, 64, 64), (64, 64))


def _slide(config: RunConfig, layout: Layout, mpp: float) -> PyramidSpec:
    try:
        check_size(layout.width, layout.height)
    except ValueError as error:
        raise ConfigError(f"setting 'size': {error}") from None
    magnification = round(10.0 / mpp, 2)
    return PyramidSpec(layout.width, layout.height, mpp, magnification, config.compression, config.quality)


def _passes(config: RunConfig, card: BundleCard, spec: PyramidSpec, model: Model) -> list[PassPlan]:
    f, side = card.latent.factor, card.crop_latent
    if min(spec.width, spec.height) < side * f:
        raise ConfigError(f"setting 'size': {spec.width}x{spec.height} px is below the model's crop of {side * f} px a side")
    overlap = default_overlap(config.mode, side) if config.overlap is None else config.overlap
    if overlap >= side:
        raise ConfigError(f"setting 'overlap': {overlap} is not below the model's crop side, {side} latent px")
    wanted = config.levels or (len(card.levels) if config.mode == "pathup" else 1)
    if wanted > len(card.levels):
        names = ", ".join(level.name for level in card.levels)
        raise ConfigError(f"setting 'levels': {wanted}, but bundle {card.name!r} has {len(card.levels)} ({names})")
    chosen = cascade_scales([level.mpp for level in card.levels], wanted, spec.width, spec.height, side * f)
    plans = []
    for index, (level, scale) in enumerate(chosen):
        height, width = (math.ceil(extent / (scale * f)) for extent in (spec.height, spec.width))
        first = "reference" if config.reference else "noise"
        start = "previous" if index else first
        strength = 1.0 if start == "noise" else config.strength
        plans.append(
            PassPlan(
                index=index,
                level=level,
                height=height,
                width=width,
                scale=scale,
                factor=f,
                chunk=config.chunk or default_chunk(height, width, side, _CHUNK_WORKERS),
                side=side,
                schedule=_schedule(config, card, model, strength),
                start=start,  # type: ignore[arg-type]  # one of the three words
                strength=strength,
                mode=config.mode,
                overlap=overlap,
                taper=config.taper or DEFAULT_TAPER,
                weighted_last=config.weighted_last,
                seed=config.seed,
            )
        )
    if any(plan.chunk < side or plan.chunk % 2 for plan in plans):
        raise ConfigError(f"setting 'chunk': {config.chunk}; it must be even and at least the crop side, {side} latent px")
    return plans


def _eta(config: RunConfig, card: BundleCard) -> float:
    """The noise of each step: as set, or the bundle's if the sampler knows any."""
    if config.eta is not None:
        return config.eta
    return card.eta if config.sampler == "ddim" else 0.0


def _schedule(config: RunConfig, card: BundleCard, model: Model, strength: float) -> Schedule:
    try:
        return make_schedule(model.abar, config.steps or card.steps, strength)
    except ValueError as error:
        raise ConfigError(f"setting 'steps': {error}") from None


def _glass(card: BundleCard, model: Model) -> dict[str, Any]:
    """Index, colour and latent of bare glass: the centre of an encoded plain image."""
    rgb = tuple(card.glass_rgb or PLAIN_GLASS)
    side = 16 * card.latent.factor
    latent = model.autoencoder.encode(np.full((side, side, 3), rgb, dtype=np.uint8))
    centre = latent[:, latent.shape[1] // 2, latent.shape[2] // 2]
    return {"index": card.table.background, "rgb": [int(v) for v in rgb], "latent": [float(v) for v in centre]}


def _settled(config: RunConfig, passes: list[dict[str, Any]], sampling: dict[str, Any], spec: PyramidSpec) -> dict[str, Any]:
    """The settings with every default filled in: what decides the pixels."""
    inputs = {"layout", "layout_classes", "subtypes", "mask_model", "reference", "model", "device"}
    given = {key: value for key, value in config.identity().items() if key not in inputs}
    chosen = {key: passes[-1][key] for key in ("overlap", "taper", "chunk")}
    return {**given, **sampling, **chosen, "size": [spec.width, spec.height], "mpp": spec.mpp, "passes": passes}


def _spec_fields(spec: PyramidSpec) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(spec)


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """The settings as any folder can read them: ``resume`` may be called from another one."""
    paths: dict[str, Path | str] = {key: value.absolute() for key, value in config if isinstance(value, Path)}
    if config.scheduler and is_queue_file(config.scheduler):
        paths["scheduler"] = str(Path(config.scheduler).absolute())
    return config.model_copy(update=paths)


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path else None
