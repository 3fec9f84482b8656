"""How fast this machine is: a worker's model calls, and everything else a run does, measured in a few seconds.

Everything else is what a small slide takes whose model costs nothing: one pass over two by two chunks of tissue, in a scratch
folder. Its costs hardly depend on the slide: they are those of a latent pixel or of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import ResourceError
from wsigen.base.geometry import Box
from wsigen.layout.layout import UniformLayout
from wsigen.models.autoencoder import PIECE
from wsigen.run.outputs import export_annotations
from wsigen.run.prepare import Prepared, class_map_of_chunk
from wsigen.run.repair import prepare_pass
from wsigen.run.tasks.context import RunContext, load_shared_model
from wsigen.run.tasks.decode import WINDOW, decode_block
from wsigen.run.tasks.denoise import assemble, denoise, start
from wsigen.sampling.schedule import Schedule
from wsigen.slide.ome import ome_xml
from wsigen.slide.writer import level0_sha256, write_slide
from wsigen.storage.files import sha256
from wsigen.storage.local import LocalFolder

if TYPE_CHECKING:
    from wsigen.models.autoencoder import Autoencoder
    from wsigen.models.model import Denoiser, Model

BATCHES = 5
"""Model calls that are timed; the first call of a process is slow and is not."""

STEPS = 2
"""Steps of the small slide: solvers that look back do so from the second on."""

LARGEST_CHUNK = 512
"""Side of the small slide's chunks at most, latent px."""

BLENDED = 4.0
"""Times its area that a block decodes where windows are blended: of 128 px, 96 apart, 4 x 4 touch a block of 256."""

Clock = Callable[[], float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NonModelCost:
    """Seconds of what a run does besides calling its model.

    Attributes
    ----------
    start, step : float
        A worker's, for a latent px of a chunk, once and in every step: noise, state read, checked, merged, written and flushed;
        batches filled.
    tissue_block, glass_block : float
        A worker's, for a block of the slide that is decoded, and for one of bare glass: rounded, encoded, spooled.
    driver_block : float
        The driver's, for a block: its class map drawn, written and looked through, its place in the file, its annotations.
    """

    start: float = 0.0
    step: float = 0.0
    tissue_block: float = 0.0
    glass_block: float = 0.0
    driver_block: float = 0.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds on this machine.

    Attributes
    ----------
    call : float
        A row of a model call.
    decode : float
        A latent px decoded, its share of the window's context included.
    encode : float
        A latent px encoded; 0 if no pass starts from a picture.
    calibrate : float
        A latent px of the windows whose statistics the decoder's norms share; 0 if it has none.
    grid_call : float
        A cell of a window of a call of the network that draws grids; 0 if there is none.
    non_model : NonModelCost
        Everything else.
    """

    call: float
    decode: float
    encode: float = 0.0
    calibrate: float = 0.0
    grid_call: float = 0.0
    non_model: NonModelCost = field(default_factory=NonModelCost)


def measure_speed(prepared: Prepared, threads: int, clock: Clock, place: Path | None = None) -> Speed:
    """Measure on random latents: the median of some batches, one window (or piece) each way, and a slide without the model.

    Parameters
    ----------
    threads : int
        torch's, as a worker has.
    clock : callable
        What seconds are.
    place : Path, optional
        A folder on the disk that will hold state and slide, for a moment's scratch files (the system's if there is none).

    Raises
    ------
    ResourceError
        If the scratch files cannot be written.
    """
    import torch

    torch.set_num_threads(threads)
    spec, card = prepared.spec, prepared.card
    model, last = load_shared_model(spec.model, spec.device, spec.precision), spec.passes[-1]
    autoencoder = model.autoencoder
    side = PIECE if autoencoder.in_pieces else WINDOW
    extent = min(side + 2 * autoencoder.halo, last.height, last.width)
    halo = autoencoder.halo if extent == side + 2 * autoencoder.halo else 0
    window = _noise(model, (), extent)
    crop = [_noise(model, (), card.crop_latent)]
    autoencoder.norm_statistics(crop)
    calibrate, statistics = _timed(clock, lambda: autoencoder.norm_statistics(crop))
    autoencoder.freeze_norm(statistics)
    _decoded(autoencoder, window, halo)  # the first call of a process is slow
    decode, picture = _timed(clock, lambda: _decoded(autoencoder, window, halo))
    autoencoder.freeze_norm(None)
    guided = any(plan.start != "noise" for plan in spec.passes)
    encode = _timed(clock, lambda: autoencoder.encode(np.rint(picture).astype(np.uint8)))[0] if guided else 0.0
    area = picture.shape[0] * picture.shape[1] / card.latent.factor**2
    decode *= 1.0 if autoencoder.halo or max(last.height, last.width) <= WINDOW else BLENDED
    calibrated = card.crop_latent**2
    batch, timestep = spec.sampling.batch, last.schedule.timesteps[0]
    call = _call(model, card.crop_latent, batch, timestep, clock)
    side = next((plan.side for plan in spec.passes if plan.network == "grid"), 0)
    grid_call = _call(model.grid, side, batch, timestep, clock) / side**2 if model.grid and side else 0.0
    try:
        with TemporaryDirectory(dir=place, prefix=".wsigen-") as scratch:
            non_model = measure_non_model(prepared, NullModel(model, picture), clock, Path(scratch))
    except OSError as error:
        where = place or "the system's folder for temporary files"
        raise ResourceError(f"{where}: cannot hold the estimate's scratch files ({error.strerror}); free some space") from None
    calibrate *= autoencoder.has_norms
    return Speed(call, decode / area, encode / area, calibrate / calibrated, grid_call, non_model)


def _decoded(autoencoder: Autoencoder, window: NDArray[np.float32], halo: int) -> NDArray[np.float32]:
    """The inside of a window, decoded as a run does it."""
    if not autoencoder.splits:
        return autoencoder.decode(window, (halo,) * 4)
    box = Box(0, 0, *window.shape[1:])
    features = autoencoder.features(lambda part: window[(slice(None), *part.slices)], box, [box])
    return autoencoder.decode_features(features, box, (halo,) * 4)


class NullModel:
    """A model whose calls cost nothing; all else is the real one's.

    Parameters
    ----------
    picture : ndarray
        What it decodes, float32 ``(h, w, 3)`` in 0 .. 255, repeated where a window is larger: how long a tile takes to encode
        depends on it.
    """

    def __init__(self, model: Model, picture: NDArray[np.float32]) -> None:
        self._model = model
        self.autoencoder = _NullAutoencoder(model, picture)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, latents: NDArray[np.float32], *_: object) -> NDArray[np.float32]:
        """Nothing."""
        return np.zeros_like(latents)


class _NullAutoencoder:
    """See `NullModel`."""

    splits = False  # features would be computed by the real one

    def __init__(self, model: Model, picture: NDArray[np.float32]) -> None:
        self._autoencoder, self._factor = model.autoencoder, model.card.latent.factor
        side = WINDOW * self._factor
        times = [-(-side // extent) for extent in picture.shape[:2]]
        self._pixels = np.tile(picture, (*times, 1)).astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._autoencoder, name)

    def decode(self, latents: NDArray[np.float32], halo: tuple[int, int, int, int] = (0, 0, 0, 0)) -> NDArray[np.float32]:
        """The same picture, as fresh values."""
        height, width = latents.shape[1] - halo[0] - halo[1], latents.shape[2] - halo[2] - halo[3]
        return self._pixels[: height * self._factor, : width * self._factor].copy()

    def freeze_norm(self, *_: object) -> None:
        """Nothing to freeze."""


def measure_non_model(prepared: Prepared, model: NullModel, clock: Clock, place: Path) -> NonModelCost:
    """Make the small slide; of every kind of task the median.

    Parameters
    ----------
    prepared : Prepared
        The run: its last pass's chunks, crops and sampler are those of the small slide.
    place : Path
        An empty folder on the disk that will hold the run; what is written there stays.
    """
    run, layout = _small_run(prepared, LocalFolder(place / "run"))
    run.model = cast("Model", model)
    pass_, slide, path = run.passes[0], run.slide, place / "slide.ome.tiff"
    chunks, steps, blocks = list(pass_.plan.grid), range(pass_.plan.steps), list(slide.grid)
    glass = run.spec.glass.index

    def timed(work: Callable[..., object], *cases: tuple[Any, ...]) -> float:
        return median(_timed(clock, partial(work, *case))[0] for case in cases)

    def finish() -> None:
        export_annotations(pass_, prepared.card.table, place / "slide.geojson")
        write_slide(path, slide, run.spool, ome_xml(slide, path.name, {}))
        level0_sha256(path)
        sha256(path)

    driver = timed(prepare_pass, (pass_, layout, None))
    begun = timed(start, *((pass_, ij) for ij in chunks))
    stepped = [
        timed(task, *((pass_, ij, step) for ij in chunks)) for step in steps for task in (denoise, assemble)
    ]  # in this order, as each reads what the one before wrote
    pass_.state.write_norm(np.empty(0))
    decoded = timed(decode_block, *((pass_, ij) for ij in blocks))
    driver += timed(finish, ())
    for ij in chunks if glass is not None else []:
        pass_.state.write_classes(ij, np.full(pass_.plan.grid.box(ij).shape, glass, np.uint8))
    bare = timed(decode_block, *((pass_, ij) for ij in blocks))
    area, block_area = pass_.plan.chunk**2, (slide.block // pass_.plan.factor) ** 2
    return NonModelCost(
        start=begun / area,
        step=sum(stepped) / len(steps) / area,
        tissue_block=decoded,
        glass_block=bare,
        driver_block=driver / len(blocks) + block_area * _class_maps(prepared, clock),
    )


def _small_run(prepared: Prepared, folder: LocalFolder) -> tuple[RunContext, UniformLayout]:
    """The small slide's run before its first task: one pass from noise, whole blocks, nothing but tissue."""
    spec, last = prepared.spec, prepared.spec.passes[-1]
    block = spec.slide.block // last.factor
    chunk = -(-max(last.side, min(last.chunk, LARGEST_CHUNK)) // block) * block
    timesteps = last.schedule.timesteps[:STEPS]
    schedule = Schedule(timesteps, (*last.schedule.abar[: len(timesteps)], 1.0))
    plan = replace(
        last,
        index=0,
        height=2 * chunk,
        width=2 * chunk,
        chunk=chunk,
        scale=1,
        start="noise",
        strength=1.0,
        schedule=schedule,
        grid_from="none",
        consistency="none",
    )
    slide = replace(spec.slide, height=plan.height * plan.factor, width=plan.width * plan.factor)
    tissue = next((index for index, c in enumerate(prepared.card.table) if not c.background), 0)
    folder.make()
    spec.changed(passes=(plan,), slide=slide).save(folder)
    run = RunContext(folder.path, folder)
    run.spool.make()
    return run, UniformLayout(slide.height, slide.width, tissue)


def _class_maps(prepared: Prepared, clock: Clock) -> float:
    """Seconds of a latent px of the run's own class map, from some of its chunks: a layout that is drawn takes long."""
    plan = prepared.spec.passes[-1]
    chunks = list(plan.grid)
    sampled = [chunks[k] for k in sorted({0, len(chunks) // 3, 2 * len(chunks) // 3, len(chunks) - 1})]
    seconds, _ = _timed(clock, lambda: [class_map_of_chunk(prepared.layout, plan, ij) for ij in sampled])
    return seconds / sum(math.prod(plan.grid.box(ij).shape) for ij in sampled)


def _call(model: Denoiser, side: int, batch: int, timestep: int, clock: Clock) -> float:
    """Seconds of a row of a model call."""
    from wsigen.models.conditioning import conditions_of

    condition = conditions_of(model.card, np.full((side, side), UNKNOWN, dtype=np.uint8))[0][0]
    latents = _noise(model, (batch,), side)
    times = [_timed(clock, lambda: model.predict(latents, timestep, [condition] * batch, 0))[0] for _ in range(1 + BATCHES)]
    return median(times[1:]) / batch


def _noise(model: Denoiser, batch: tuple[int, ...], side: int) -> NDArray[np.float32]:
    shape = (*batch, model.card.latent.channels, side, side)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _timed(clock: Clock, work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that work took, and what it gave."""
    begin = clock()
    result = work()
    return clock() - begin, result
