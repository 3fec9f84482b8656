"""From a configuration to a run specification: every choice made, every input checked, before any work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsigen.base.errors import BundleError, ConfigError, RunError
from wsigen.base.geometry import Box
from wsigen.grids.mean_colour import NAME as MEAN_COLOUR
from wsigen.grids.mean_colour import mean_colours
from wsigen.layout.layout import Layout
from wsigen.models.bundle import GRID
from wsigen.models.card import BundleCard
from wsigen.models.loading import read_schedule
from wsigen.models.one_thread import one_thread
from wsigen.run.choose_layout import ChosenLayout, choose_layout, size_on_slide, told_missed
from wsigen.run.config import RunConfig, check_size
from wsigen.run.continued import Continued, Free, continued_of
from wsigen.run.engine.queue import is_queue_file
from wsigen.run.given_grid import OTHER_SIZE, check_grid, follows_grid
from wsigen.run.spec import Glass, InputHashes, RunSpec, Sampling, first_difference, package_versions
from wsigen.sampling.passes import (
    DEFAULT_TAPER,
    MOST_CHUNK_PX,
    MOST_CHUNKS,
    Consistency,
    GridFrom,
    PassPlan,
    cascade_scales,
    default_chunk,
    default_overlap,
)
from wsigen.sampling.schedule import Schedule, make_schedule
from wsigen.slide.pyramid import PyramidSpec
from wsigen.storage.files import sha256_of_input
from wsigen.storage.folder import RUN_SPEC

if TYPE_CHECKING:
    from wsigen.models.model import Model

PLAIN_GLASS = (243, 243, 245)
"""Glass of bundles that do not name their own."""

BATCH = {"cpu": 4, "other": 16}
"""Crops per model call: more does not raise a CPU's throughput and wastes padding; accelerators want to be full."""

_CHUNK_WORKERS = 8
"""Workers the default chunk side provides for. A constant: a run goes on with its chunks, whatever workers it has then."""


@dataclass(frozen=True)
class Prepared:
    """What a run is about to do: its configuration, inputs and specification."""

    config: RunConfig
    card: BundleCard
    layout: Layout
    spec: RunSpec
    output: Path
    notes: tuple[str, ...] = ()
    """What the user should know of the inputs, a line each."""
    continued: Continued | None = None
    """What is known of another slide."""

    @property
    def free_layout(self) -> Layout:
        """The layout, with glass where another slide stays: what the run costs depends on the rest."""
        plan, glass = self.spec.passes[-1], self.spec.glass.index
        if self.continued is None or glass is None:
            return self.layout
        return Free(self.layout, self.continued, plan, glass)


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
    mpp = slide_mpp(config, card)
    chosen = choose_layout(config, folder, card.table, mpp)
    slide = _slide(config, chosen.layout, mpp)
    missed = told_missed(config, chosen.layout, card.table, card.latent.factor, mpp)
    notes = (*chosen.notes, *missed, *_check_reference(config, slide))
    continued = _continued(config, card, mpp)
    check_grid(config, card, slide)
    model = _load(folder, config)
    absolute = _with_absolute_paths(config)
    sampling = _sampling(config, card)
    spec = RunSpec(
        sampling=sampling,
        grid_sampling=_grid_sampling(sampling, card.drawing),
        passes=_passes(config, card, slide, folder),
        slide=slide,
        glass=_glass(card, model),
        precision=config.precision,
        model_sha256=bundle_hash(folder),
        inputs=InputHashes(
            layout=_hash(config.layout_file),
            layout_classes=_hash(config.layout_classes),
            subtypes=_hash(config.subtypes),
            reference=_hash(config.reference),
            grid=_hash(config.grid),
            extend=_hash(config.extend),
            regions=_hash(config.regions),
        ),
        drawn_layout=chosen.source,
        settings=absolute,
        output=output.name,
        model=str(folder.absolute()),
        device=config.device,
        keep_run=config.keep_run,
        began="here" if config.scheduler is None else "queue" if is_queue_file(config.scheduler) else "scheduler",
        layout_title=_title(chosen, absolute),
        versions=package_versions(),
    )
    return Prepared(config, card, chosen.layout, spec, output.absolute(), notes, continued)


def class_map_of_chunk(layout: Layout, plan: PassPlan, ij: tuple[int, int]) -> np.ndarray:
    """The class map that conditions one chunk, uint8 ``(h, w)``."""
    return layout.class_map(plan.grid.box(ij), plan.cell_px)


def prepare_again(config: RunConfig, card: BundleCard, spec: RunSpec, output: Path) -> Prepared:
    """Make every choice of an existing run again from its settings (``config`` names the kept copies of the inputs).

    Glass is left: its latent is a network's, which another device gives in other last bits.

    Raises
    ------
    RunError
        If the run was not made by its settings: a layout that is drawn again is another one, or ``run.json`` is a forgery.
    """
    folder = Path(spec.model)
    mpp = slide_mpp(config, card)
    chosen = choose_layout(config, folder, card.table, mpp)
    difference = first_difference(chosen.source, spec.drawn_layout, "drawn_layout")
    if difference:
        raise RunError(f"the layout drawn again is not the run's ({difference}); restore what drew it, or start anew")
    slide = _slide(config, chosen.layout, mpp)
    check_grid(config, card, slide)
    sampling = _sampling(config, card)
    again = spec.changed(
        sampling=sampling,
        grid_sampling=_grid_sampling(sampling, card.drawing),
        passes=_passes(config, card, slide, folder),
        slide=slide,
        glass=spec.glass.model_copy(update=_glass_of(card)),
        precision=config.precision,
        layout_title=_title(chosen, spec.settings),
    )
    difference = first_difference(again.model_dump(mode="json"), spec.model_dump(mode="json"))
    if not difference and len(spec.glass.latent) != card.latent.channels:
        difference = f"glass.latent: {card.latent.channels} channels here, {len(spec.glass.latent)} in the run"
    if difference:
        raise RunError(f"{RUN_SPEC}: its settings give another run ({difference}); it was edited: start the run anew")
    return Prepared(config, card, chosen.layout, spec, output, continued=_continued(config, card, mpp))


def slide_mpp(config: RunConfig, card: BundleCard) -> float:
    """um/px of the slide: the model's own, or as set (ConfigError if neither says it, or they differ)."""
    own = card.levels[0].mpp
    if config.mpp is None and own is None:
        raise ConfigError(f"bundle {card.name!r} does not say its um/px: give the slide's with --mpp")
    if config.mpp is not None and own is not None and abs(config.mpp - own) > 0.01 * own:
        raise ConfigError(
            f"setting 'mpp': {config.mpp}, but bundle {card.name!r} makes images of {own} um/px; leave it out "
            "(--layout-mpp says at which um/px a layout was drawn)"
        )
    return config.mpp if config.mpp is not None else float(own or 0.0)


# -- inside ------------------------------------------------------------------------------------------------------------


def _hash(path: Path | None) -> str | None:
    return None if path is None else sha256_of_input(path)


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


def _check_reference(config: RunConfig, slide: PyramidSpec) -> list[str]:
    """Read the whole reference once, small, so that a damaged one is refused before the run begins; return notes."""
    if config.reference is None:
        return []
    from wsigen.slide.reading import open_image

    image = open_image(config.reference)
    image.region(Box(0, 0, 64, 64), (64, 64))
    notes = [f"{config.reference.name}: {note}" for note in image.notes]
    height, width = size_on_slide(image, slide.mpp)
    if image.mpp is None and config.size is None and (height, width) == (slide.height, slide.width):
        notes.append(f"{config.reference.name}: does not say its um/px; its pixels are taken for those of the slide")
    if abs(slide.height * width / (slide.width * height) - 1) > OTHER_SIZE:
        notes.append(
            f"{config.reference.name}: is of another shape, {width}x{height} px on a slide of {slide.width}x{slide.height} px, "
            "and is stretched: what is drawn on it lies elsewhere on the slide; crop it, or change --size"
        )
    return notes


def _continued(config: RunConfig, card: BundleCard, mpp: float) -> Continued | None:
    """What is known of another slide; a grid that the model draws must be one that can be made of it (ConfigError)."""
    grid = card.grid
    drawn = config.extend is not None and grid is not None and grid.network is not None
    if drawn and grid is not None and (grid.told != "channels" or grid.encoder != MEAN_COLOUR):
        raise ConfigError(
            f"setting 'extend': model {card.name!r} draws grids of encoder {grid.encoder!r}, which cannot be continued yet; "
            f"use a model of {MEAN_COLOUR!r} grids or of none"
        )
    return continued_of(config, card.table, mpp, card.latent.factor)


def _slide(config: RunConfig, layout: Layout, mpp: float) -> PyramidSpec:
    try:
        check_size(layout.width, layout.height)
    except ValueError as error:
        raise ConfigError(f"setting 'size': {error}") from None
    magnification = round(10.0 / mpp, 2)
    return PyramidSpec(layout.width, layout.height, mpp, magnification, config.compression, config.quality)


def _title(chosen: ChosenLayout, settings: RunConfig) -> str | None:
    """The layout for people: how it was drawn, or its file."""
    return chosen.title or (str(settings.layout) if settings.layout else None)


def _passes(config: RunConfig, card: BundleCard, slide: PyramidSpec, folder: Path) -> tuple[PassPlan, ...]:
    """The passes of the grid, coarse to fine, if the model draws one; then those of the slide."""
    f, side = card.latent.factor, card.crop_latent
    if min(slide.width, slide.height) < side * f:
        raise ConfigError(f"setting 'size': {slide.width}x{slide.height} px is below the model's crop of {side * f} px a side")
    if config.overlap is not None and config.overlap >= side:
        raise ConfigError(f"setting 'overlap': {config.overlap} is not below the model's crop side, {side} latent px")
    wanted = config.levels or (len(card.levels) if config.mode == "pathup" else 1)
    if wanted > len(card.levels):
        names = ", ".join(level.name for level in card.levels)
        raise ConfigError(f"setting 'levels': {wanted}, but bundle {card.name!r} has {len(card.levels)} ({names})")
    given = follows_grid(config, card)
    plans = [] if given else _grid_passes(config, card, slide, folder)
    grid_from: GridFrom = "given" if given else "previous" if plans else "none"
    steps, first = config.steps or card.steps, "reference" if config.reference and not given else "noise"
    drawn = plans[-1] if plans else None
    mpps = [level.mpp for level in card.levels]
    for level, scale in cascade_scales(mpps, mpps[0], wanted, slide.width, slide.height, side * f):
        start = "previous" if plans and plans[-1].network == "image" else first
        strength = 1.0 if start == "noise" else config.strength
        align = _align(card.patch, drawn.scale // scale if drawn else 1)
        plan = _pass(config, slide, len(plans), level, scale, f, side, _schedule(folder, steps, strength), align)
        kept: Consistency = config.consistency if start == "previous" else "none"
        plan = replace(plan, start=start, strength=strength, grid_from=grid_from, consistency=kept)  # type: ignore[arg-type]
        plans.append(plan)
    if any(plan.chunk < plan.side or plan.chunk % 2 for plan in plans):
        raise ConfigError(f"setting 'chunk': {config.chunk}; it must be even and at least the crop side, {side} latent px")
    return tuple(plans)


def _align(patch: int, cell: int) -> int:
    """Windows begin where the network's squares do, and where cells do that it is told, as in training.

    ``cell`` is the side of such a cell, px of the pass; 0 where it is smaller than a px.
    """
    return math.lcm(patch, max(1, cell))


def _grid_passes(config: RunConfig, card: BundleCard, slide: PyramidSpec, folder: Path) -> list[PassPlan]:
    """The passes of the network that draws grids: each finer one is told the one before."""
    if card.grid is None or card.grid.network is None:
        return []
    f, network = card.latent.factor, card.grid.network
    mpps = [level.mpp for level in network.levels]
    plans: list[PassPlan] = []
    finest, least = card.levels[0].mpp or mpps[0], network.crops[-1] * f
    for level, scale in cascade_scales(mpps, finest, len(mpps), slide.width, slide.height, least):
        smaller = min(slide.width, slide.height) // (scale * f)
        if math.ceil(min(slide.width, slide.height) / (scale * f)) < network.crops[-1]:
            size = f"{slide.width}x{slide.height} px"
            raise ConfigError(f"setting 'size': {size} is below {least * scale} px a side, a window of the model's grid")
        side = next((crop for crop in network.crops if crop <= smaller), network.crops[-1])
        steps = network.steps if level == 0 else network.coarse_steps or network.steps
        align = _align(network.patch, plans[-1].scale // scale if plans else 1)
        plan = _pass(config, slide, len(plans), level, scale, f, side, _schedule(folder / GRID, steps, 1.0), align)
        # overlap and chunk as set are those of the slide: crops of a grid may be larger
        overlap, chunk = default_overlap(config.mode, side), max(plan.chunk, side)
        plans.append(replace(plan, overlap=overlap, chunk=chunk, network="grid", grid_from="previous" if plans else "none"))
    return plans


def _pass(
    config: RunConfig, slide: PyramidSpec, index: int, level: int, scale: int, f: int, side: int, schedule: Schedule, align: int
) -> PassPlan:
    """A pass from noise."""
    height, width = (math.ceil(extent / (scale * f)) for extent in (slide.height, slide.width))
    chunk = config.chunk or default_chunk(height, width, side, _CHUNK_WORKERS)
    if math.ceil(height / chunk) * math.ceil(width / chunk) > MOST_CHUNKS:
        raise ConfigError(f"setting 'chunk': {chunk} cuts the slide into more than {MOST_CHUNKS:,} chunks; choose a larger one")
    if (chunk + side) ** 2 > MOST_CHUNK_PX:
        raise ConfigError(f"setting 'chunk': {chunk} latent px a side, too large to be held in memory; choose a smaller one")
    return PassPlan(
        index=index,
        level=level,
        height=height,
        width=width,
        scale=scale,
        factor=f,
        chunk=chunk,
        side=side,
        schedule=schedule,
        start="noise",
        strength=1.0,
        mode=config.mode,
        overlap=default_overlap(config.mode, side) if config.overlap is None else min(config.overlap, side - 1),
        taper=config.taper or DEFAULT_TAPER,
        weighted_last=config.weighted_last,
        seed=config.seed,
        align=align,
    )


def _sampling(config: RunConfig, card: BundleCard) -> Sampling:
    """As set, else as the bundle says: noise that is asked for needs DDIM, and DPM-Solver++ adds none."""
    guidance = card.guidance if config.guidance is None else config.guidance
    sampler = config.sampler or ("ddim" if config.eta else card.sampler)
    eta = config.eta if config.eta is not None else card.eta if sampler == "ddim" else 0.0
    batch = config.batch or BATCH.get(config.device.split(":")[0], BATCH["other"])
    return Sampling(guidance=guidance, sampler=sampler, eta=eta, batch=batch, seed=config.seed)


def _grid_sampling(sampling: Sampling, drawing: BundleCard | None) -> Sampling | None:
    """As the bundle says of its grids, with the slide's seed and batch; None where it draws none."""
    if drawing is None:
        return None
    eta = drawing.eta if drawing.sampler == "ddim" else 0.0
    return sampling.model_copy(update={"guidance": drawing.guidance, "sampler": drawing.sampler, "eta": eta})


def _schedule(folder: Path, steps: int, strength: float) -> Schedule:
    """Timesteps and noise levels of the network in a folder; its weights are not needed."""
    try:
        return make_schedule(read_schedule(folder)[0], steps, strength)
    except ValueError as error:
        raise ConfigError(f"setting 'steps': {error}") from None


def _glass(card: BundleCard, model: Model) -> Glass:
    """Index, colour and latent of bare glass: the centre of an encoded plain image."""
    known = _glass_of(card)
    side = 16 * card.latent.factor
    with one_thread():
        latent = model.autoencoder.encode(np.full((side, side, 3), known["rgb"], dtype=np.uint8))
    centre = latent[:, latent.shape[1] // 2, latent.shape[2] // 2]
    return Glass(**known, latent=tuple(float(v) for v in centre))


def _glass_of(card: BundleCard) -> dict[str, Any]:
    """What a card says of glass: its class, its colour and its cell in a grid."""
    red, green, blue = card.glass_rgb or PLAIN_GLASS
    cell: tuple[float, ...] = ()
    if card.grid is not None and card.grid.told == "channels" and card.grid.encoder == MEAN_COLOUR:
        plain = mean_colours(np.full((1, 1, 1, 3), (red, green, blue), dtype=np.uint8), 1)[0, :, 0, 0]
        cell = tuple(float((v - m) / s) for v, m, s in zip(plain, card.grid.mean, card.grid.std, strict=True))
    return {"index": card.table.background, "rgb": (red, green, blue), "cell": cell}


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """The settings as any folder can read them: ``resume`` may be called from another one."""
    return config.model_copy(update={key: value.absolute() for key, value in config if isinstance(value, Path)})
