"""What a slide will cost: model calls counted on the plan, seconds from a short measurement, disk and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.models.halo import EFFECTIVE_HALO
from wsigen.run.config import RunConfig, config_of
from wsigen.run.display import duration
from wsigen.run.engine.workers import Workers, usable_cores
from wsigen.run.estimate.calls import PassCalls, count_calls
from wsigen.run.estimate.memory import Projection, existing_parent, gib, project_run
from wsigen.run.estimate.speed import Clock, Speed, measure_speed
from wsigen.run.keywords import with_settings
from wsigen.run.machine_file import with_machine
from wsigen.run.prepare import Prepared, prepare
from wsigen.run.rundir import run_dir_of
from wsigen.run.tasks.decode import WINDOW, calibrated_px
from wsigen.run.tasks.encode import HALO as ENCODE_HALO
from wsigen.run.tasks.encode import WINDOW as ENCODE_WINDOW
from wsigen.run.typed_settings import RunSettings
from wsigen.sampling.passes import PassPlan
from wsigen.storage.opening import as_place

DISPATCH_S = 0.0018
"""CPU seconds of a task in dask's scheduler, the driver's being fewer (``python -m benchmarks.scale --measure``)."""

DRIVER_S = 0.0017
"""CPU seconds of a task in the driver (as before)."""

TASK_S = 0.002
"""CPU seconds of a task in its worker for dask's messages (as before)."""


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
    workers : Workers
        Who is to do it.
    notes : tuple of str
        What the user should know of the inputs, a line each.
    """

    calls: int
    windows: int
    seconds: float
    projection: Projection
    workers: Workers
    notes: tuple[str, ...] = ()

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
        return "\n".join([*lines, *(f"note:         {note}" for note in self.notes)])


@with_settings(RunSettings.__annotations__)
def estimate(
    config: RunConfig | None = None, *, machine: str | Path | None = None, **settings: Unpack[RunSettings]
) -> Estimate:
    """Say what a slide would cost: count and measure without generating anything.

    Parameters
    ----------
    config : RunConfig, optional
        Settings.
    machine : str or Path, optional
        As for `wsigen.generate`.
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
    return estimate_by(perf_counter, with_machine(config_of(config, settings), machine))


def estimate_by(clock: Clock, config: RunConfig) -> Estimate:
    """`estimate` in the seconds of a clock: those of the wall, or of this process alone (``time.process_time``)."""
    begin = clock()
    output = Path("estimate.ome.tiff")
    prepared = prepare(config, output)
    started = clock() - begin  # imports, the model loaded, every input checked: a run does the same
    workers = Workers.of(config)
    speed = measure_speed(prepared, workers.threads, clock, _scratch(run_dir_of(config, output)))
    projection = project_run(prepared.spec, prepared.card, prepared.free_layout)
    return cost_of(prepared, projection, workers, speed, started)


def cost_of(prepared: Prepared, projection: Projection, workers: Workers, speed: Speed, started: float) -> Estimate:
    """The cost of a prepared run at a speed that was measured; ``started``: seconds until its first task."""
    spec = prepared.spec
    calls = [count_pass(prepared, plan) for plan in spec.passes]
    windows = tissue_windows(prepared.free_layout, spec.passes[-1].factor, spec.glass.index)
    if workers.processes and workers.scheduler is None:
        started *= 2  # every worker process imports and loads the same, all at once
    denoised = sum(_denoising(prepared, projection.tissue, workers, speed, index, made) for index, made in enumerate(calls))
    seconds = started + denoised + _decoding(prepared, workers, speed, windows)
    return Estimate(sum(made.rows for made in calls), int(windows.sum()), seconds, projection, workers, prepared.notes)


def count_pass(prepared: Prepared, plan: PassPlan) -> PassCalls:
    """Model calls of one pass of a prepared run."""
    spec, card, sampling = prepared.spec, prepared.card, prepared.spec.sampling
    if plan.network == "grid":
        card, sampling = card.drawing or card, spec.grid_sampling or sampling
    return count_calls(card, prepared.free_layout, plan, spec.glass.index, sampling.guidance, sampling.batch)


# -- seconds of the stages ---------------------------------------------------------------------------------------------


def _denoising(prepared: Prepared, share: float, workers: Workers, speed: Speed, index: int, calls: PassCalls) -> float:
    """A pass over a slide with this share of tissue."""
    plans, other = prepared.spec.passes, speed.non_model
    plan = plans[index]
    call = speed.call if plan.network == "image" else speed.grid_call * plan.side**2
    called = calls.rows * call + share * guide_seconds(plans, index, speed)
    area = sum(math.prod(plan.grid.box(ij).shape) for ij in calls.chunks)
    tasks = len(calls.chunks) * (2 * plan.steps + 1)
    return _shared(prepared, workers, called, area * (other.start + plan.steps * other.step), tasks, len(calls.chunks))


def _decoding(prepared: Prepared, workers: Workers, speed: Speed, windows: NDArray[np.bool_]) -> float:
    """Statistics that all windows share, blocks, and what the driver does alone: class map, annotations, the slide's file."""
    plans, other, last = prepared.spec.passes, speed.non_model, prepared.spec.passes[-1]
    blocks = len(prepared.spec.slide.grid)
    tissue = int(_any_of(windows, max(1, prepared.spec.slide.block // (WINDOW * last.factor))).sum())
    decoded = [plan for plan in plans if plan.network == "image"]
    calibrated = sum(calibrated_px(plan) for plan in decoded) * speed.calibrate
    area = windows.mean() * last.height * last.width
    encoded = tissue * other.tissue_block + (blocks - tissue) * other.glass_block
    work = area * speed.decode * _decoded_px(plans, last.index)
    return calibrated + _shared(prepared, workers, work, encoded, blocks, blocks) + blocks * other.driver_block


def _decoded_px(plans: Sequence[PassPlan], index: int) -> float:
    """Latent px decoded for one of a pass: itself, and what lies below it of passes to which it is corrected."""
    plan = plans[index]
    if plan.consistency == "none":
        return 1.0
    below = WINDOW * plan.scale // plans[index - 1].scale + 2 * EFFECTIVE_HALO
    return 1.0 + (below / WINDOW) ** 2 * _decoded_px(plans, index - 1)


def _shared(prepared: Prepared, workers: Workers, called: float, other: float, tasks: int, most: int) -> float:
    """Work that no more than ``most`` workers share: model calls and all else, and what tasks cost whoever passes them on.

    Where tasks share an accelerator, one calls the model while another reads and writes; on a CPU one waits for the other.
    """
    on_cpu, here = prepared.spec.device.startswith("cpu"), workers.scheduler is None
    other += tasks * (TASK_S + (DISPATCH_S + DRIVER_S) * (here and on_cpu))  # driver and scheduler take these cores, too
    work = max(called, other) if workers.accelerated and workers.tasks_at_once > 1 else called + other
    cores = usable_cores() // workers.threads if here and on_cpu else workers.count
    return max(work / max(1, min(workers.count, cores, most)), tasks * DISPATCH_S)


def guide_seconds(plans: Sequence[PassPlan], index: int, speed: Speed) -> float:
    """Seconds of one worker until a pass whose every pixel is tissue has encoded the picture it starts from.

    A pass that starts from the one before decodes what lies below every window it encodes; a window is encoded for every chunk
    that it touches.
    """
    plan = plans[index]
    if plan.start == "noise":
        return 0.0
    side = ENCODE_WINDOW + 2 * ENCODE_HALO
    seconds = min(side**2, plan.height * plan.width) * speed.encode
    if plan.start == "previous":
        coarse = plans[index - 1]
        below = side * plan.scale // coarse.scale
        seconds += min(below**2, coarse.height * coarse.width) * speed.decode * _decoded_px(plans, coarse.index)
    return seconds * _windows_of_chunks(plan.height, plan.chunk) * _windows_of_chunks(plan.width, plan.chunk)


def _windows_of_chunks(extent: int, chunk: int) -> float:
    """Encoded windows along one axis, summed over the chunks there; a window at the edge counts by what of it is there."""
    window = min(ENCODE_WINDOW, extent)
    chunks = [(begin // window * window, min(begin + chunk, extent)) for begin in range(0, extent, chunk)]
    return sum(min(window, extent - start) for begin, end in chunks for start in range(begin, end, window)) / window


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
    box = Box(0, 0, 8 * -(-layout.height // side), 8 * -(-layout.width // side))
    classes = layout.class_map(box, side // 8)
    return _any_of(np.ones_like(classes, dtype=bool) if glass is None else classes != glass, 8)


def _any_of(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Whether anything is set in each square of ``side``, bool ``(ceil(h / side), ceil(w / side))``."""
    whole = np.pad(mask, [(0, -extent % side) for extent in mask.shape])
    squares = whole.reshape(whole.shape[0] // side, side, whole.shape[1] // side, side)
    return np.asarray(squares.any(axis=(1, 3)))
