"""What tasks cost beside the model: those of a small slide with a model that costs nothing, in a scratch folder.

The slide has 4 x 3 chunks, of the run's side but at least as large as a block and no larger than needed. On its left is
tissue, a little more than two columns of chunks, so that all neighbours of the chunk in the middle take part; on its right is
bare glass. Its state is written, not computed: noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.run.estimate.projection import plans_of
from wsigen.run.manifest import Manifest
from wsigen.run.outputs import export_annotations
from wsigen.run.prepare import Prepared, class_map_of_chunk
from wsigen.run.repair import prepare_pass
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.run.tasks.decode import WINDOW, decode_block
from wsigen.run.tasks.denoise import assemble, denoise, start, step_settings
from wsigen.run.tasks.predict import calls_of_crop, estimate_crops
from wsigen.run.tasks.state import start_noise
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import encode_block
from wsigen.slide.writer import level0_sha256, write_slide
from wsigen.storage.files import sha256
from wsigen.storage.local import LocalFolder

if TYPE_CHECKING:
    from wsigen.models.model import Model

ROWS, COLUMNS = 3, 4
"""Chunks of the slide."""
TISSUE = 2.25
"""Columns of chunks that are tissue: the middle one's neighbours take part, the last column does not."""
LARGEST = 512
"""Largest chunk in latent px: costs are told for a pixel, and a scratch folder need not hold more."""
MIDDLE = (1, 1)
"""The chunk whose tasks are measured."""
REPETITIONS = 3

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class BesideModel:
    """Seconds of what a run does beside calling its model, wherever the clock and the folder were.

    Attributes
    ----------
    start, denoise, assemble:
        A worker's, for a latent pixel of the chunk: noise, state read, checked, merged, written and flushed.
    row:
        And for every row of a model call: batches filled, guidance, the estimate of x0.
    tissue_block, glass_block:
        A worker's, for a block of the slide that is decoded, and for one of bare glass: rounded, encoded, spooled.
    prepare, annotate:
        The driver's, for a latent pixel: before a pass the run's own class map drawn, written and looked through for active
        chunks; annotations from it (of one straight border: ragged tissue takes longer).
    tissue_file, glass_file:
        The driver's, for a block, from the spool into the slide, with its checksums.
    """

    start: float = 0.0
    denoise: float = 0.0
    row: float = 0.0
    assemble: float = 0.0
    tissue_block: float = 0.0
    glass_block: float = 0.0
    prepare: float = 0.0
    annotate: float = 0.0
    tissue_file: float = 0.0
    glass_file: float = 0.0


@dataclass(frozen=True, slots=True)
class _HalfTissue:
    """Tissue on the left, glass on the right."""

    height: int
    width: int
    tissue_px: int
    label: int
    glass: int

    def class_map(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """See `Layout.class_map`."""
        centres = (np.arange(box.x0, box.x1) + 0.5) * cell_px
        row = np.where(centres < self.tissue_px, self.label, self.glass).astype(np.uint8)
        return np.tile(row, (box.height, 1))


class _Hollow:
    """A model that costs nothing: everything of the real one but its calls.

    Parameters
    ----------
    picture:
        What it decodes, float32 ``[h, w, 3]`` in 0 .. 255: repeated where a window is larger.
    """

    def __init__(self, model: Model, picture: NDArray[np.float32]) -> None:
        self._model = model
        self._pixels = _tiled(picture, WINDOW * model.card.latent.factor).astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def decoder_splits(self) -> bool:
        """No: features would be computed by the real one."""
        return False

    def predict(self, latents: NDArray[np.float32], *_: object) -> NDArray[np.float32]:
        """Nothing."""
        return np.zeros_like(latents)

    def decode(self, latents: NDArray[np.float32], halo: tuple[int, int, int, int] = (0, 0, 0, 0)) -> NDArray[np.float32]:
        """The same picture, as fresh values."""
        f = self._model.card.latent.factor
        height, width = latents.shape[1] - halo[0] - halo[1], latents.shape[2] - halo[2] - halo[3]
        return self._pixels[: height * f, : width * f].copy()

    def freeze_norm(self, *_: object) -> None:
        """Nothing to freeze."""


def measure_beside(prepared: Prepared, model: Model, picture: NDArray[np.float32], clock: Clock, place: Path) -> BesideModel:
    """Do every kind of task a few times; medians.

    Parameters
    ----------
    prepared:
        The run: its last pass's chunks, crops and sampler are those of the small slide.
    picture:
        What blocks look like, as `_Hollow` has it: how long a tile takes depends on it.
    clock:
        What seconds are.
    place:
        An empty folder on the disk that will hold the run; what is written there stays.
    """
    timed = _Timed(clock)
    run, part, prepare_s = _rehearse(prepared, _Hollow(model, picture), timed, place)
    canvas = math.prod(part.plan.grid.canvas.shape)
    drawn = _class_maps(prepared, timed)
    area = math.prod(part.plan.grid.box(MIDDLE).shape)
    return BesideModel(
        **_half_steps(run, part, timed, area),
        **_blocks(run, part, timed),
        **_files(run, picture, timed, place),
        prepare=prepare_s / canvas + drawn,
        annotate=timed(lambda: export_annotations(run, part, prepared.card.table, place / "slide.geojson")) / canvas,
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    """Seconds of some work, the median of some repetitions; ``before`` each of them what is not measured."""

    clock: Clock

    def __call__(self, work: Callable[[], object], before: Callable[[], object] | None = None, repetitions: int = 1) -> float:
        times = []
        for _ in range(repetitions):
            if before is not None:
                before()
            begin = self.clock()
            work()
            times.append(self.clock() - begin)
        return median(times)


def _class_maps(prepared: Prepared, timed: _Timed) -> float:
    """Seconds of a latent pixel of the run's own class map, from some of its chunks: a layout that is drawn takes long."""
    plan = plans_of(prepared.manifest)[-1]
    chunks = list(plan.grid)
    sampled = [chunks[k] for k in sorted({0, len(chunks) // 3, 2 * len(chunks) // 3, len(chunks) - 1})]
    seconds = timed(lambda: [class_map_of_chunk(prepared.layout, plan, ij) for ij in sampled])
    return seconds / sum(math.prod(plan.grid.box(ij).shape) for ij in sampled)


def _rehearse(prepared: Prepared, hollow: _Hollow, timed: _Timed, place: Path) -> tuple[RunContext, PassContext, float]:
    """The small slide's run before its first task, and the seconds that took."""
    manifest, layout = _small(prepared)
    folder = LocalFolder(place / "run")
    folder.make()
    manifest.save(folder)
    run = RunContext(folder.path, folder)
    run.spool.make()
    run.model = cast("Model", hollow)
    part = run.passes[0]
    return run, part, timed(lambda: prepare_pass(run, part, layout))


def _small(prepared: Prepared) -> tuple[Manifest, _HalfTissue]:
    """The manifest and the layout of the small slide: one pass, from noise."""
    m, table = prepared.manifest, prepared.card.table
    last = m.passes[-1]
    factor = int(last["factor"])
    block, side = int(m.slide["block"]) // factor, int(last["side"])
    chunk = max(block, min(int(last["chunk"]), max(LARGEST, 2 * side)))
    height, width = ROWS * chunk, COLUMNS * chunk
    label = next((index for index, c in enumerate(table) if not c.background), 0)
    glass = label if m.glass["index"] is None else m.glass["index"]
    layout = _HalfTissue(height * factor, width * factor, int(TISSUE * chunk * factor), label, glass)
    alone = {**last, "index": 0, "height": height, "width": width, "chunk": chunk, "scale": 1, "start": "noise"}
    slide = {**m.slide, "height": height * factor, "width": width * factor}
    return replace(m, passes=[alone], slide=slide), layout


def _half_steps(run: RunContext, part: PassContext, timed: _Timed, area: int) -> dict[str, float]:
    """Of the chunk in the middle. Keys are new to a run: those of the repetition before are deleted."""
    state, step = part.state, min(1, part.plan.steps - 1)  # the first step has no history
    for ij in part.plan.grid.neighbourhood(MIDDLE):
        noise = start_noise(run, part, part.plan.grid.box(ij))
        state.write_latents(step, ij, noise)
        state.write_partial(
            step, ij, np.zeros((state.channels, *part.plan.grid.box(ij).dilate(state.margin).shape), np.float32)
        )
    if step:
        state.write_history(step - 1, MIDDLE, noise)
    rows = 0

    def step_once() -> None:
        nonlocal rows
        rows = denoise(run, part, MIDDLE, step)

    def again(h: int) -> Callable[[], None]:
        return partial(state.delete, h, MIDDLE)

    whole = timed(step_once, again(2 * step + 1), REPETITIONS)
    crops = timed(lambda: list(_estimates(run, part, step, rows)), None, REPETITIONS)
    made = timed(lambda: assemble(run, part, MIDDLE, step), again(2 * step + 2), REPETITIONS)
    begun = timed(lambda: start(run, part, MIDDLE), again(0), REPETITIONS)
    return {
        "start": begun / area,
        "denoise": max(0.0, whole - crops) / area,
        "row": crops / rows,
        "assemble": made / area,
    }


def _estimates(run: RunContext, part: PassContext, step: int, rows: int) -> Iterator[NDArray[np.float32]]:
    """What every crop costs a denoise task: conditions, batches, guidance, the estimate of x0; one label in each."""
    side, settings = part.plan.side, step_settings(run, part, step)
    label = part.state.read_classes(Box(0, 0, 1, 1))[0, 0]
    pair = (np.zeros((part.state.channels, side, side), np.float32), np.full((side, side), label, np.uint8))
    calls = len(calls_of_crop(run.model.card, pair[1], settings.guidance))
    return estimate_crops(run.model, settings, [pair] * (rows // calls))


def _blocks(run: RunContext, part: PassContext, timed: _Timed) -> dict[str, float]:
    """Of a block in the middle of the tissue and of one on the glass; both the same where a model knows no glass."""
    part.state.write_norm(np.empty(0))
    for chunk in part.plan.grid:
        part.state.write_latents(part.plan.steps, chunk, start_noise(run, part, part.plan.grid.box(chunk)))
    middle, factor, side = part.plan.grid.box(MIDDLE), part.plan.factor, run.slide.block
    row, column = middle.y0 * factor // side, middle.x0 * factor // side
    on_glass = run.slide.width // side - 1
    found = {}
    for name, ij in (("tissue_block", (row, column)), ("glass_block", (row, on_glass))):
        found[name] = timed(partial(decode_block, run, part, ij), partial(run.spool.discard, ij), REPETITIONS)
    return found


def _files(run: RunContext, picture: NDArray[np.float32], timed: _Timed, place: Path) -> dict[str, float]:
    """Of slides of tissue and of glass: what four blocks take more than one, as a file has costs of its own."""
    side = run.slide.block
    glass = np.full((side, side, 3), run.glass_rgb, np.uint8)
    found = {}
    for name, pixels in (("tissue_file", _tiled(picture, side).round().astype(np.uint8)), ("glass_file", glass)):
        files = [_slide_of(pixels, run.slide, blocks, place / f"{name}-{blocks}") for blocks in (1, 2)]
        one, four = (timed(put_together, None, REPETITIONS) for put_together in files)
        found[name] = max(0.0, four - one) / 3
    return found


def _slide_of(pixels: NDArray[np.uint8], like: PyramidSpec, blocks: int, folder: Path) -> Callable[[], str]:
    """What writes a square slide that repeats a block, so many times a side, and its checksums."""
    spec = replace(like, width=blocks * like.block, height=blocks * like.block)
    spool, path = Spool(folder), folder.with_suffix(".ome.tiff")
    for ij in spec.grid:
        spool.write(ij, encode_block(spec, ij, pixels))

    def put_together() -> str:
        write_slide(path, spec, spool, ome_xml(spec, path.name, {}))
        return level0_sha256(path) + sha256(path)

    return put_together


def _tiled(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A square of this side that repeats a picture."""
    times = [-(-side // extent) for extent in picture.shape[:2]]
    return np.tile(picture, (*times, 1))[:side, :side]
