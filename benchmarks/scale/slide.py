"""The tasks of a slide and what each costs: its plan, its tissue and its bytes are the real ones, its seconds measured ones."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.bundles import write_polygons
from benchmarks.scale.events import Load
from benchmarks.scale.times import Scenario, TaskTimes
from benchmarks.scale.traffic import PassTraffic, Traffic, part_requests
from wsigen.base.geometry import Box, ChunkGrid, tile_side
from wsigen.models.model import Model
from wsigen.run.engine.wavefront import Index
from wsigen.run.estimate.calls import SAMPLED_STEPS, active_chunks, expected_rows
from wsigen.run.estimate.estimate import guide_seconds, tissue_windows
from wsigen.run.estimate.projection import plans_of
from wsigen.run.estimate.speed import Speed
from wsigen.run.prepare import Prepared
from wsigen.run.tasks.context import load_shared_model
from wsigen.run.tasks.decode import NORM_WINDOWS, WINDOW
from wsigen.sampling.passes import PassPlan
from wsigen.slide.pyramid import REMAINDER, PyramidSpec

JPEG_BYTES = 0.5
"""Of a pixel of tissue (as the projected disk has it); all levels together have 4 / 3 as many."""
CALIBRATION_COST = 1.7
"""Seconds of a pixel decoded for the decoder's statistics, over one decoded for the slide (measured)."""
CLASS_READS = 3
"""Requests of a task for its class map, whose bytes hardly count: it is compressed."""


def write_sections(path: Path, side: int, name: str) -> Path:
    """Write a layout of three ragged sections that cover a third of a square slide of ``side`` px; the rest is glass."""
    turn = np.linspace(0, 2 * math.pi, 240, endpoint=False)
    polygons = []
    for k, (x, y) in enumerate([(0.27, 0.27), (0.72, 0.40), (0.36, 0.74)]):
        radius = 0.185 * side * (1 + 0.14 * np.sin(2 * turn + k) + 0.08 * np.sin(5 * turn + 2 * k) + 0.04 * np.sin(11 * turn))
        ring = np.stack([x * side + radius * np.cos(turn), y * side + radius * np.sin(turn)], axis=1)
        polygons.append((name, ring.round(1).tolist()))
    return write_polygons(path, polygons)


def traffic_of(prepared: Prepared, plan: PassPlan) -> PassTraffic:
    """What a pass of a prepared run reads and writes."""
    m = prepared.manifest
    active = active_chunks(prepared.layout, plan, m.glass["index"])
    return PassTraffic(plan, active, prepared.card.latent.channels, m.sampling["sampler"] == "dpm++")


class Slide:
    """A slide to be made: what is known of it before anything is costed.

    Attributes
    ----------
    prepared:
        As ``generate`` prepares it.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    @cached_property
    def plans(self) -> list[PassPlan]:
        """All passes, coarse to fine."""
        return plans_of(self.prepared.manifest)

    @property
    def glass(self) -> int | None:
        """The class that costs nothing."""
        index: int | None = self.prepared.manifest.glass["index"]
        return index

    @cached_property
    def model(self) -> Model:
        """For its decoder's halo."""
        m = self.prepared.manifest
        return load_shared_model(m.model, m.device, m.precision)

    @cached_property
    def rows(self) -> list[list[NDArray[np.float64]]]:
        """Of every pass and some of its steps, the rows of model calls of each chunk ``[I, J]``, padding included."""
        card, sampling = self.prepared.card, self.prepared.manifest.sampling
        batch, guidance = int(sampling["batch"]), float(sampling["guidance"])
        found = []
        for plan in self.plans:
            steps = sorted({round(k) for k in np.linspace(0, plan.steps - 1, SAMPLED_STEPS)})
            rows = [expected_rows(card, self.prepared.layout, plan, self.glass, guidance, [step]) for step in steps]
            found.append([np.ceil(of_step / batch) * batch for of_step in rows])
        return found

    @cached_property
    def traffic(self) -> list[PassTraffic]:
        """Of every pass, with its active chunks."""
        return [traffic_of(self.prepared, plan) for plan in self.plans]

    @cached_property
    def windows(self) -> NDArray[np.bool_]:
        """Decoded windows with tissue in them."""
        return tissue_windows(self.prepared.layout, self.plans[-1].factor, self.glass)


@dataclass(frozen=True, slots=True)
class Costs:
    """What everything of a slide costs: the slide, the task times, and the model's."""

    slide: Slide
    times: TaskTimes
    scenario: Scenario


class PassTasks:
    """The half-steps of a pass.

    Attributes
    ----------
    active:
        Chunks that take part.
    traffic:
        What they read and write.
    """

    def __init__(self, costs: Costs, plan: PassPlan) -> None:
        self.costs, self.plan = costs, plan
        self._rows = costs.slide.rows[plan.index]
        self.traffic = costs.slide.traffic[plan.index]
        self.active = sorted(self.traffic.active)
        self._known: dict[tuple[int, Index], Load] = {}
        speed = Speed(costs.scenario.call, costs.scenario.decode, costs.scenario.encode)
        halo = costs.slide.model.equal_halo(WINDOW)
        self._guide = guide_seconds(costs.slide.plans, plan.index, halo, speed) / (plan.height * plan.width)

    def load(self, h: int, ij: Index) -> Load:
        """What half-step ``h`` of a chunk costs."""
        step = (h - 1) // 2 % len(self._rows)
        key = (0 if h == 0 else 1 + step if h % 2 else -1, ij)
        if key not in self._known:
            self._known[key] = self._start(ij) if h == 0 else self._denoise(ij, step) if h % 2 else self._assemble(ij)
        return self._known[key]

    @cached_property
    def prepare(self) -> Load:
        """What the driver does before: the class map, and which chunks are active."""
        plan = self.plan
        return Load(plan.height * plan.width * self.costs.times.prepare, 0.0, len(plan.grid), 0.0, len(plan.grid))

    @cached_property
    def calibrate(self) -> Load:
        """The decoder's shared statistics: one task for which all others wait."""
        if not self.costs.slide.model.has_norms:
            return Load(self.costs.times.task)
        windows = min(NORM_WINDOWS, len(self.active))
        work = windows * self.plan.side**2 * self.costs.scenario.decode * CALIBRATION_COST
        return Load(self.costs.times.task + work, windows * self.traffic.state, 3 * windows, 0.0, 2)

    def _start(self, ij: Index) -> Load:
        area = math.prod(self.plan.grid.box(ij).shape)
        work = self.costs.times.task + area * (self.costs.times.start + self._guide)
        coarse = 4 if self.plan.start == "previous" else 0  # chunks of the pass before that lie below one of this
        return _load(work, self.traffic.start() + Traffic(coarse * self.traffic.state, 3 * coarse))

    def _denoise(self, ij: Index, step: int) -> Load:
        times, rows = self.costs.times, float(self._rows[step][ij])
        if not rows:
            return Load(times.task, 0.0, 1, self.traffic.partial, 1)
        work = math.prod(self.plan.grid.box(ij).shape) * times.denoise + rows * (times.denoise_row + self.costs.scenario.call)
        return _load(times.task + work, self.traffic.denoise(ij))

    def _assemble(self, ij: Index) -> Load:
        work = math.prod(self.plan.grid.box(ij).shape) * self.costs.times.assemble
        return _load(self.costs.times.task + work, self.traffic.assemble(ij))


def _load(work: float, moved: Traffic) -> Load:
    """Besides the chunks of its state a task asks for the class map, three times."""
    return Load(work, moved.read, moved.reads + CLASS_READS, moved.written, moved.writes)


class DecodeTasks:
    """The blocks of the slide, and the file they go into.

    Attributes
    ----------
    grid:
        Blocks.
    share:
        Of each, how much of it are windows with tissue in them, ``[I, J]`` in 0 .. 1.
    """

    def __init__(self, costs: Costs, tasks: PassTasks) -> None:
        self.costs, self._pass = costs, tasks
        self.spec = PyramidSpec(**costs.slide.prepared.manifest.slide)
        self.grid: ChunkGrid = self.spec.grid
        self._windows = costs.slide.windows
        self._halo, self._equal = costs.slide.model.halo, costs.slide.model.equal_halo(WINDOW)

    @cached_property
    def share(self) -> NDArray[np.float64]:
        """As above."""
        found = np.zeros((self.grid.rows, self.grid.columns))
        for ij in self.grid:
            found[ij] = float(np.mean([self._windows[w] for w in self._in_block(ij)]))
        return found

    def load(self, h: int, ij: Index) -> Load:
        """What decoding a block costs."""
        times, share, plan = self.costs.times, float(self.share[ij]), self._pass.plan
        work = times.task + times.glass_block + share * (times.tissue_block - times.glass_block)
        size, reads = 0.0, 4
        for i, j in self._in_block(ij):
            if not self._windows[i, j]:
                continue
            window = Box(i * WINDOW, j * WINDOW, (i + 1) * WINDOW, (j + 1) * WINDOW).intersect(plan.grid.canvas)
            work += (window.height + 2 * self._equal) * (window.width + 2 * self._equal) * self.costs.scenario.decode
            around = window.dilate(self._halo).intersect(plan.grid.canvas)
            for chunk, tiles in self._tiles(around).items():
                active = chunk in self._pass.traffic.active
                size += active * tiles / self._every * self._pass.traffic.state
                reads += part_requests(tiles, self._every) if active else 1
            reads += 2
        return Load(work, size, reads, self._blob(ij), 1)

    @property
    def _every(self) -> int:
        """Tiles of a chunk."""
        chunk = self._pass.plan.chunk
        return (chunk // tile_side(chunk)) ** 2

    def _tiles(self, box: Box) -> Counter[Index]:
        """How many tiles of each chunk ``box`` touches."""
        plan = self._pass.plan
        tile = tile_side(plan.chunk)
        across = plan.chunk // tile
        return Counter((i // across, j // across) for i, j in ChunkGrid(plan.height, plan.width, tile).overlapping(box))

    @cached_property
    def file(self) -> Load:
        """What the driver does at the end: the blocks into the file, which is read twice again for its checksums."""
        times = self.costs.times
        work = float(np.sum(times.glass_file + self.share * (times.tissue_file - times.glass_file)))
        blobs = sum(self._blob(ij) for ij in self.grid)
        return Load(work, 3 * blobs, len(self.grid), blobs, 1)

    def _blob(self, ij: Index) -> float:
        """Bytes of an encoded block."""
        area = math.prod(self.grid.box(ij).shape)
        return float(self.share[ij]) * area * (JPEG_BYTES * 4 / 3 + 3 / REMAINDER**2)

    def _in_block(self, ij: Index) -> list[tuple[int, int]]:
        """Windows of a block, by their place in the lattice of windows."""
        block, side = self.grid.box(ij), WINDOW * self._pass.plan.factor
        rows, columns = range(block.y0 // side, -(-block.y1 // side)), range(block.x0 // side, -(-block.x1 // side))
        return [(i, j) for i in rows for j in columns]
