"""What a slide will cost: model calls counted on the plan, seconds from a short measurement, disk and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.run.config import RunConfig, RunSettings, with_settings
from wsigen.run.display import duration
from wsigen.run.engine.workers import Workers, usable_cores
from wsigen.run.estimate.calls import active_chunks, count_calls
from wsigen.run.estimate.memory import Projection, existing_parent, gib, project_run, tissue_share
from wsigen.run.estimate.speed import Clock, Speed, measure_speed
from wsigen.run.prepare import Prepared, prepare
from wsigen.run.rundir import run_dir_of
from wsigen.run.tasks.context import load_shared_model
from wsigen.run.tasks.decode import NORM_WINDOWS, WINDOW
from wsigen.run.tasks.guide import ENCODE_HALO, ENCODE_WINDOW
from wsigen.sampling.passes import PassPlan
from wsigen.storage.opening import as_place

if TYPE_CHECKING:
    from wsigen.models.model import Model

DISPATCH_S = 0.0018
"""CPU seconds of a task in dask's scheduler, the driver's being fewer (``python -m benchmarks.scale --measure``)."""

DRIVER_S = 0.0017
"""CPU seconds of a task in the driver (as before)."""

TASK_S = 0.002
"""CPU seconds of a task in its worker for dask's messages (as before)."""

BLENDED_HALO = WINDOW / 2
"""Latent px around windows that are blended: a block of 256 takes 4 x 4 of them, a stride of 96 apart."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a slide.

    Attributes
    ----------
    calls : int
        Rows of model calls over all passes and steps (one crop under one condition is one).
    windows : int
        Decoded windows.
    seconds : float
        Of the run from its start to the slide, from a short measurement on this machine.
    projection : Projection
        Memory and disk.
    note : str
        What the user should know of the inputs; may be empty.
    """

    calls: int
    windows: int
    seconds: float
    projection: Projection
    workers: Workers
    note: str = ""

    def __str__(self) -> str:
        """For people, a line each: model calls, time, memory, disk."""
        where = f"{self.workers.count} worker{'s' if self.workers.count > 1 else ''} here"
        memory = self.projection.total(self.workers.count, self.workers.processes, self.workers.tasks_at_once)
        lines = [
            f"model calls:  {self.calls:,} crops, {self.windows:,} decoded windows",
            f"time:         about {duration(self.seconds)} with {where}",
            f"memory:       {gib(memory)} ({gib(self.projection.worker)} a worker, on top of its process)",
            f"disk:         {gib(self.projection.disk_state)} of state, "
            f"{gib(self.projection.disk_output + self.projection.disk_scratch)} of tiles and slide",
        ]
        return "\n".join([*lines, *([f"note:         {self.note}"] if self.note else [])])


@with_settings(RunSettings.__annotations__)
def estimate(config: RunConfig | None = None, *, clock: Clock = perf_counter, **settings: Unpack[RunSettings]) -> Estimate:
    """Say what a slide would cost: count and measure without generating anything.

    Parameters
    ----------
    config : RunConfig, optional
        Settings.
    clock : callable
        What seconds are: of wall time, or of this process alone (``time.process_time``).
    **settings
        As for `wsigen.generate`; they override those of ``config``.

    Raises
    ------
    WsigenError
        As ``generate`` does for the same settings.

    Examples
    --------
    >>> print(wsigen.estimate(layout="regions.geojson", mode="pathup"))
    """
    begin = clock()
    config = config.merged(**settings) if config else RunConfig.model_validate(settings)
    output = Path("estimate.ome.tiff")
    prepared = prepare(config, output)
    started = clock() - begin  # imports, the model loaded, every input checked: a run does the same
    workers = Workers.of(config)
    speed = measure_speed(prepared, workers.threads, clock, _scratch(run_dir_of(config, output)))
    spec = prepared.spec
    projection = project_run(spec, prepared.card, prepared.layout)
    calls = [count_rows(prepared, plan) for plan in spec.passes]
    run = _Run(prepared, load_shared_model(spec.model, spec.device, spec.precision), workers, speed)
    if workers.processes and workers.scheduler is None:
        started *= 2  # every worker process imports and loads the same, all at once
    seconds = started + sum(map(run.denoising, spec.passes, calls)) + run.decoding(projection.blocks) + run.driver
    return Estimate(sum(calls), int(run.windows.sum()), seconds, projection, workers, prepared.note)


@dataclass(frozen=True)
class _Run:
    """A run whose seconds are reckoned, stage by stage."""

    prepared: Prepared
    model: Model
    workers: Workers
    speed: Speed

    @property
    def plans(self) -> tuple[PassPlan, ...]:
        """The passes."""
        return self.prepared.spec.passes

    @property
    def glass(self) -> int | None:
        """The class that costs nothing."""
        return self.prepared.spec.glass.index

    @property
    def halo(self) -> float:
        """Context of a decoded window, as if all layers decoded it, latent px."""
        return self.model.autoencoder.equal_halo(WINDOW) if self.model.autoencoder.halo else BLENDED_HALO

    @cached_property
    def windows(self) -> NDArray[np.bool_]:
        """Decoded windows with tissue in them."""
        return tissue_windows(self.prepared.layout, self.plans[-1].factor, self.glass)

    @cached_property
    def blocks(self) -> tuple[int, int]:
        """Blocks of the slide with such windows in them, and those of bare glass."""
        grid, side, tissue = self.prepared.spec.slide.grid, WINDOW * self.plans[-1].factor, 0
        for ij in grid:
            box = grid.box(ij)
            tissue += bool(self.windows[box.y0 // side : -(-box.y1 // side), box.x0 // side : -(-box.x1 // side)].any())
        return tissue, len(grid) - tissue

    def denoising(self, plan: PassPlan, rows: int) -> float:
        """A pass of so many rows of model calls."""
        active, other = active_chunks(self.prepared.layout, plan, self.glass), self.speed.non_model
        share = tissue_share(self.prepared.layout, self.glass)
        called = rows * self.speed.call + share * guide_seconds(self.plans, plan.index, self.halo, self.speed)
        area = sum(math.prod(plan.grid.box(ij).shape) for ij in active)
        each = other.start + plan.steps * other.step
        tasks = len(active) * (2 * plan.steps + 1)
        return self._shared(called, area * each, tasks, len(active))

    def decoding(self, most: int) -> float:
        """All blocks, ``most`` of them at once, and the statistics they share before."""
        area, (tissue, bare), other = _decoded_area(self.windows, self.plans[-1], self.halo), self.blocks, self.speed.non_model
        encoded = tissue * other.tissue_block + bare * other.glass_block
        measured = sum(min(NORM_WINDOWS, len(plan.grid)) * plan.side**2 for plan in self.plans)
        measured *= self.model.autoencoder.has_norms
        return measured * self.speed.calibrate + self._shared(area * self.speed.decode, encoded, tissue + bare, most)

    @property
    def driver(self) -> float:
        """What no worker shares: class map, annotations, the slide's file."""
        return sum(self.blocks) * self.speed.non_model.driver_block

    def _shared(self, called: float, other: float, tasks: int, most: int) -> float:
        """Work that no more than ``most`` workers share: model calls and all else, and what tasks cost whoever passes them on.

        Where tasks share an accelerator, one calls the model while another reads and writes; on a CPU one waits for the other.
        """
        device, workers = self.prepared.spec.device, self.workers
        here = workers.scheduler is None and device.startswith("cpu")
        other += tasks * (TASK_S + (DISPATCH_S + DRIVER_S) * here)  # driver and scheduler take these cores, too
        work = max(called, other) if workers.accelerated and workers.tasks_at_once > 1 else called + other
        return max(work / max(1, min(_at_once(workers, device), most)), tasks * DISPATCH_S)


def count_rows(prepared: Prepared, plan: PassPlan) -> int:
    """Rows of model calls of one pass of a prepared run."""
    spec = prepared.spec
    return count_calls(prepared.card, prepared.layout, plan, spec.glass.index, spec.sampling.guidance, spec.sampling.batch)


def guide_seconds(plans: Sequence[PassPlan], index: int, halo: float, speed: Speed) -> float:
    """Seconds of one worker until a pass whose every pixel is tissue has encoded the picture it starts from.

    Parameters
    ----------
    halo : float
        Of a decoded window, as if all layers decoded it: a pass that starts from the one before decodes its part of that with
        every window it encodes.
    """
    plan = plans[index]
    if plan.start == "noise":
        return 0.0
    side = ENCODE_WINDOW + 2 * ENCODE_HALO
    seconds = min(side**2, plan.height * plan.width) * speed.encode
    if plan.start == "previous":
        coarse = plans[index - 1]
        below = side * plan.scale // coarse.scale + 2 * halo
        seconds += min(below**2, coarse.height * coarse.width) * speed.decode
    return seconds * plan.height * plan.width / min(ENCODE_WINDOW**2, plan.height * plan.width)


def _at_once(workers: Workers, device: str) -> int:
    """Workers that work at once: those of this machine share its cores."""
    if workers.scheduler is not None or not device.startswith("cpu"):
        return workers.count
    return max(1, min(workers.count, usable_cores() // workers.threads))


def _scratch(run_dir: str | Path) -> Path | None:
    """The folder that exists where a run will lie, if files can be written there; an object store is taken for the system's."""
    place = as_place(run_dir)
    if not isinstance(place, Path):
        return None
    folder = existing_parent(place)
    return folder if os.access(folder, os.W_OK) else None


def tissue_windows(layout: Layout, factor: int, glass: int | None) -> NDArray[np.bool_]:
    """Decoded windows that hold tissue, bool ``(I, J)``, from a coarse class map."""
    side = WINDOW * factor
    box = Box(0, 0, -(-layout.height // side), -(-layout.width // side))
    fine = layout.class_map(Box(0, 0, box.height * 8, box.width * 8), side // 8)
    tissue = np.ones_like(fine, dtype=bool) if glass is None else fine != glass
    return np.asarray(tissue.reshape(box.height, 8, box.width, 8).any(axis=(1, 3)))


def _decoded_area(windows: NDArray[np.bool_], plan: PassPlan, halo: float) -> float:
    """Latent pixels in the windows that hold tissue and in their halos."""
    heights, widths = (_with_halos(extent, halo) for extent in (plan.height, plan.width))
    return float((windows * np.outer(heights, widths)).sum())


def _with_halos(extent: int, halo: float) -> list[float]:
    """Sides of the decoded windows along an axis, with their halos inside the canvas, latent px."""
    starts = range(0, extent, WINDOW)
    return [min(extent, start + WINDOW + halo) - max(0, start - halo) for start in starts]
