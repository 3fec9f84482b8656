"""A slide of 100,000 px on 1 to 1,000 workers: arithmetic from measured task times.

    python -m benchmarks.scale [--measure] [--document docs/benchmarks.md]

The slide is one of the embedded model's default run. No stage ends before any of four bounds: its work over the workers, the
longest chain of tasks that wait for each other (the wavefront), what all tasks take of the driver or of dask's scheduler
(whichever takes more), and of the store. Where one is far above the others it is the time; where two are alike, tasks get into
each other's way::

    seconds = (work ** p + chain ** p + dispatch ** p + store ** p) ** (1 / p),    p = 2.5

A simulation of every task as discrete events, on the engine's own wavefront, gave the same hours within 13 %; p was chosen by
it. Measured are the times of `benchmarks.task_times`; assumed the GPU's and the store's. Not counted: starting, loading the
model, faults.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.bundles import SECTIONS, section_radius
from benchmarks.document import rewrite, table
from benchmarks.task_times import MEASURED, TaskTimes, measure
from wsigen.base.errors import WsigenError
from wsigen.base.geometry import tile_side

COMMAND = "python -m benchmarks.scale"
WORKERS, COMPARED, CHUNKS = (1, 2, 8, 32, 128, 512, 1000), (8, 128, 1000), (256, 512, 1024)
LAYOUTS = ("all tissue", "two thirds glass")

STEPS, CROP, OVERLAP, CHANNELS, BATCH = 25, 64, 8, 12, 4
"""The embedded model's run: one row a crop, as its guidance is 0."""
FACTOR, CELL, WINDOW, BLOCK = 8, 8, 128, 256
"""Latent px: of 8 px each; of a cell of the tissue mask; of a decoded window; of a block of 2048 px."""
GPU_WINDOW_S = 0.03
"""Assumed: a window of 128 latent px decoded on a GPU."""
STATISTICS = 3.5
"""The decoder's shared statistics, in decoded windows: 8 crops, 1.7 times as dear a pixel (measured)."""
JPEG_BYTES = 0.5 * 4 / 3
"""Of a pixel of tissue, all levels together."""
WINDOW_TILES, WINDOW_READS = 9, 14
"""Tiles of 128 latent px, and requests, that a decoded window reads with its context."""
SHARPNESS = 2.5
"""p above."""

Field = NDArray[np.float64]
"""A number for every chunk."""


@dataclass(frozen=True, slots=True)
class Store:
    """What all workers share: bytes/s of one worker and of all, seconds that each request waits."""

    worker: float = 1e9
    total: float = 2e9
    latency: float = 0.002


@dataclass(frozen=True, slots=True)
class Stage:
    """Tasks that run together: how many, their seconds on one worker, their longest chain in seconds, bytes moved."""

    tasks: float
    work: float
    chain: float
    moved: float

    def on(self, workers: int, times: TaskTimes, store: Store) -> tuple[float, str]:
        """Seconds on so many workers, and what binds."""
        bounds = {
            "work": self.work / workers,
            "wavefront": self.chain,
            "driver" if times.driver > times.scheduler else "scheduler": self.tasks * max(times.driver, times.scheduler),
            "store": self.moved / store.total,
        }
        seconds = sum(bound**SHARPNESS for bound in bounds.values()) ** (1 / SHARPNESS)
        return float(seconds), max(bounds, key=lambda name: bounds[name])


@dataclass(frozen=True, slots=True)
class Run:
    """A slide in stages: denoising, the decoder's statistics (one task), decoding; ``alone``: seconds of the driver beside."""

    stages: tuple[Stage, Stage, Stage]
    alone: float

    @property
    def tasks(self) -> int:
        """All tasks."""
        return int(sum(stage.tasks for stage in self.stages))

    @property
    def moved_gb(self) -> float:
        """GB read and written."""
        return sum(stage.moved for stage in self.stages) / 1e9

    def on(self, workers: int, times: TaskTimes, store: Store) -> tuple[float, str]:
        """Seconds on so many workers, and what binds for the greatest part of them, with its share."""
        shares = {"class map and file": self.alone}
        for seconds, binds in (stage.on(workers, times, store) for stage in self.stages):
            shares[binds] = shares.get(binds, 0.0) + seconds
        total, most = sum(shares.values()), max(shares, key=lambda name: shares[name])
        return total, f"{most} ({shares[most] / total:.0%})"


def tissue_mask(size: int, layout: str) -> NDArray[np.bool_]:
    """Cells of ``CELL`` latent px of a slide of ``size`` px that hold tissue."""
    side = -(-size // (CELL * FACTOR))
    if layout == "all tissue":
        return np.ones((side, side), dtype=bool)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    inside = [np.hypot(y - v, x - u) < section_radius(k, np.arctan2(y - v, x - u)) for k, (u, v) in enumerate(SECTIONS)]
    return np.asarray(np.any(inside, axis=0))


def plan_run(tissue: NDArray[np.bool_], chunk: int, times: TaskTimes, crop: float, window: float, store: Store) -> Run:
    """What there is to do, with the given seconds of a crop and of a decoded window."""
    reached = ndimage.maximum_filter(tissue, CROP // CELL)  # cells with a crop around them that reaches tissue
    crops = _sums(reached, chunk // CELL) * (CELL / (CROP - OVERLAP)) ** 2
    area = _sums(np.ones_like(tissue), chunk // CELL) * CELL**2
    rows = crops + (BATCH - 1) / 2 * (crops > 0)  # batches are filled
    active, each = rows > 0, times.driver + times.scheduler
    state, partial = (4 * CHANNELS * side**2 for side in (chunk, chunk + CROP))
    edges = min(1.0, CROP / 2 / (CROP - OVERLAP))  # crops move from step to step: so often they reach a neighbour
    reads, sums = _reads(active, chunk, 0, edges), _reads(active, chunk + CROP, CROP // 2, 1.0)
    steps = [  # seconds, bytes, requests of a chunk: its class map takes three
        (times.task + 0 * area, 0 * area + state, 0 * area + 4),
        (times.task + rows * crop + area * times.pixel / 2, reads[0] * state + partial, reads[1] + 4),
        (times.task + area * times.pixel / 2, sums[0] * partial + 2 * state, sums[1] + 5),
    ]
    alone = [work + requests * store.latency + moved / min(store.worker, store.total) for work, moved, requests in steps]
    stride = CROP - OVERLAP
    most = (-(-chunk // stride) * stride / chunk) ** 2  # crops of the fullest chunk of a step, which moves with the lattice
    dense = [alone[0], alone[1] + (most - 1) * rows * crop, alone[2]]
    ends = np.zeros(active.shape)
    for half_step in range(2 * STEPS + 1):
        ends = active * (ndimage.maximum_filter(ends, 3, mode="constant") + dense[half_step and 2 - half_step % 2] + each)
    often = (1, STEPS, STEPS)
    denoise = Stage(
        float(active.sum()) * (2 * STEPS + 1),
        sum(n * float(seconds[active].sum()) for n, seconds in zip(often, alone, strict=True)),
        float(ends.max()),
        sum(n * float(moved[active].sum()) for n, (_, moved, _) in zip(often, steps, strict=True)),
    )
    return Run((denoise, *_decoding(tissue, times, window, store)), _driver_alone(tissue, times, store))


def _decoding(tissue: NDArray[np.bool_], times: TaskTimes, window: float, store: Store) -> tuple[Stage, Stage]:
    """The decoder's statistics, which all wait for, and the slide's blocks."""
    each = times.driver + times.scheduler
    windows = _sums(_sums(tissue, WINDOW // CELL) > 0, BLOCK // WINDOW)
    share = windows / _sums(np.ones_like(_sums(tissue, WINDOW // CELL)), BLOCK // WINDOW)
    moved = windows * WINDOW_TILES * WINDOW**2 * CHANNELS * 4 + share * (BLOCK * FACTOR) ** 2 * JPEG_BYTES
    encode = times.glass_block + (times.tissue_block - times.glass_block) * share
    line = min(store.worker, store.total)
    seconds = times.task + encode + windows * (window + WINDOW_READS * store.latency) + moved / line + 5 * store.latency
    statistics = times.task + STATISTICS * window
    return (
        Stage(1, statistics, each, 0.0),
        Stage(seconds.size, float(seconds.sum()), float(seconds.max()) + each, float(moved.sum())),
    )


def _driver_alone(tissue: NDArray[np.bool_], times: TaskTimes, store: Store) -> float:
    """Class map and file; the blocks are read three times (twice for checksums) and written once."""
    share = _sums(tissue, BLOCK // CELL) / (BLOCK // CELL) ** 2
    moved = 4 * float(share.sum()) * (BLOCK * FACTOR) ** 2 * JPEG_BYTES
    return share.size * (times.driver_block + 2 * store.latency) + moved / min(store.worker, store.total)


def _sums(cells: NDArray[Any], side: int) -> Field:
    """Sums over squares of ``side`` cells."""
    rows, columns = (-(-extent // side) for extent in cells.shape)
    padded = np.zeros((rows * side, columns * side))
    padded[: cells.shape[0], : cells.shape[1]] = cells
    return np.asarray(padded.reshape(rows, side, columns, side).sum(axis=(1, 3)))


def _reads(active: NDArray[np.bool_], side: int, beyond: int, share: float) -> tuple[Field, Field]:
    """What a task reads of its chunk and its active neighbours: in arrays of ``side`` latent px, and in requests.

    Of a neighbour only the tiles at the edge, half a crop deep, one request each after one that says where they lie; of its
    own array what is not ``beyond`` the chunk. A ``share`` of the tasks reaches a neighbour by an edge.
    """
    tile = tile_side(side)
    across, deep = side // tile, -(-CROP // 2 // tile)
    middle = across if not beyond else -(-(side - beyond) // tile) - beyond // tile
    edge, corner, whole = deep * middle, deep**2, middle**2
    own = 1 if whole == across**2 else 1 + whole
    requests = [share**2 * (1 + corner), share * (1 + edge), own]
    tiles = [share**2 * corner, share * edge, whole]
    near = [np.array([[c, e, c], [e, o, e], [c, e, c]], dtype=float) for c, e, o in (tiles, requests)]
    moved, asked = (ndimage.convolve(active.astype(float), kernel, mode="constant") for kernel in near)
    return moved / across**2, asked


def all_tables(args: argparse.Namespace, times: TaskTimes) -> str:
    """As Markdown."""
    store, ample = Store(args.worker_gb_s * 1e9, args.store_gb_s * 1e9, args.latency_ms / 1000), Store(1e10, 1e13, 0.0)
    gpu = f"GPU (assumed: {args.gpu_ms:g} ms a crop)"
    models = {"one CPU core (measured)": (times.crop, times.window), gpu: (args.gpu_ms / 1000, GPU_WINDOW_S)}
    blocks = [
        f"{args.size:,} px a side. Measured on {times.machine}: a task costs the driver {1000 * times.driver:.1f} ms, dask's "
        f"scheduler {1000 * times.scheduler:.1f} ms and its worker {1000 * times.task:.1f} ms beside its work (CPU time); "
        f"a crop on one core {1000 * times.crop:.0f} ms. Assumed: a store of {args.store_gb_s:g} GB/s in all, "
        f"{args.worker_gb_s:g} GB/s a worker, {args.latency_ms:g} ms a request."
    ]
    masks = {layout: tissue_mask(args.size, layout) for layout in LAYOUTS}
    rows = [(layout, name, "", store) for layout in LAYOUTS for name in models]
    for layout, name, more, where in [*rows, (LAYOUTS[-1], gpu, ", a store that hardly binds", ample)]:
        run = plan_run(masks[layout], args.chunk, times, *models[name], where)
        title = f"**{layout}, {name}, chunks of {args.chunk}{more}** ({run.tasks:,} tasks, {run.moved_gb:,.0f} GB moved)"
        blocks += [title, _by_workers(run, times, where)]
    for name, model in models.items():
        runs = {side: plan_run(masks[LAYOUTS[-1]], side, times, *model, store) for side in CHUNKS}
        blocks += [f"**{LAYOUTS[-1]}, {name}: hours by the side of a chunk**", _by_chunk(runs, times, store)]
    return "\n\n".join(blocks)


def _by_workers(run: Run, times: TaskTimes, store: Store) -> str:
    alone, lines = run.on(1, times, store)[0], []
    for workers in WORKERS:
        seconds, binds = run.on(workers, times, store)
        faster, serial = alone / seconds, run.alone / seconds
        lines.append(
            [f"{workers:,}", f"{seconds / 3600:.2f}", f"{faster:.1f}", f"{faster / workers:.0%}", f"{serial:.0%}", binds]
        )
    return table(["workers", "hours", "speed-up", "efficiency", "class map and file", "binds"], lines, numbers=True)


def _by_chunk(runs: dict[int, Run], times: TaskTimes, store: Store) -> str:
    lines = []
    for side, run in runs.items():
        found = [run.on(workers, times, store) for workers in COMPARED]
        hours = [f"{seconds / 3600:.2f}, {binds}" for seconds, binds in found]
        lines.append([side, f"{run.tasks:,}", f"{run.moved_gb:,.0f}", *hours])
    return table(["chunk, latent px", "tasks", "GB moved", *(f"{n:,} workers" for n in COMPARED)], lines, numbers=True)


def main() -> int:
    """Measure or read the task times, print the tables."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the task times here first (minutes), into --times")
    parser.add_argument("--times", type=Path, default=MEASURED, metavar="JSON", help="task times (default: those measured)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="rewrite the tables in this document")
    parser.add_argument("--size", type=int, default=100_000, help="side of the slide, px (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=512, help="side of a chunk, latent px (default: %(default)s)")
    parser.add_argument("--gpu-ms", type=float, default=5.0, help="assumed: a crop on a GPU (default: %(default)s)")
    parser.add_argument("--store-gb-s", type=float, default=2.0, help="assumed: the store, in all (default: %(default)s)")
    parser.add_argument("--worker-gb-s", type=float, default=1.0, help="assumed: the store, one worker (default: %(default)s)")
    parser.add_argument("--latency-ms", type=float, default=2.0, help="assumed: of a request (default: %(default)s)")
    args = parser.parse_args()
    try:
        if args.measure:
            measure().save(args.times)
        tables = all_tables(args, TaskTimes.load(args.times))
        print(tables)
        if args.document:
            rewrite(args.document, COMMAND, tables)
    except WsigenError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
