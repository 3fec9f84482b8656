"""What a slide will cost: model calls counted on the plan, seconds from a short measurement, disk and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from wsigen.config import RunConfig
from wsigen.counting import count_calls
from wsigen.engine.memory import Projection, existing_parent, gib
from wsigen.fleet import Workers, usable_cores
from wsigen.folder.opening import as_place
from wsigen.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.manifest import Manifest
from wsigen.preparation import Prepared, prepare
from wsigen.projection import plans_of, project_run, tissue_share
from wsigen.rundir import run_dir_of
from wsigen.sampling.multiscale import PassPlan
from wsigen.speed import Clock, Speed, measure_speed
from wsigen.tasks.context import load_shared_model
from wsigen.tasks.decode import NORM_WINDOWS, WINDOW
from wsigen.tasks.guide import ENCODE_HALO, ENCODE_WINDOW
from wsigen.traffic import PassTraffic, active_chunks

CALIBRATION_COST = 1.4
"""Seconds of a pixel decoded for the decoder's statistics, over one decoded for the slide (measured)."""


DISPATCH_S = 0.0018
"""CPU seconds of a task in dask's scheduler, the driver's being fewer (``python -m benchmarks.simulate --measure``)."""

BLENDED_HALO = WINDOW / 2
"""Latent px around windows that are blended: a block of 256 takes 4 x 4 of them, a stride of 96 apart."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a slide.

    Attributes
    ----------
    calls:
        Rows of model calls over all passes and steps (one crop under one condition is one).
    windows:
        Decoded windows.
    seconds:
        Of the run from its start to the slide, from a short measurement on this machine.
    projection:
        Memory and disk.
    """

    calls: int
    windows: int
    seconds: float
    projection: Projection
    workers: Workers

    @property
    def lines(self) -> list[str]:
        """For people."""
        where = f"{self.workers.count} worker{'s' if self.workers.count > 1 else ''} here"
        memory = self.projection.total(self.workers.count, self.workers.processes, self.workers.tasks_at_once)
        return [
            f"model calls:  {self.calls:,} crops, {self.windows:,} decoded windows",
            f"time:         about {self.seconds / 60:.1f} minutes with {where}",
            f"memory:       {gib(memory)} ({gib(self.projection.worker)} a worker, on top of its process)",
            f"disk:         {gib(self.projection.disk_state)} of state, "
            f"{gib(self.projection.disk_output + self.projection.disk_scratch)} of tiles and slide",
        ]


def estimate(config: RunConfig, clock: Clock = perf_counter) -> Estimate:
    """Count and measure without generating anything.

    Parameters
    ----------
    clock:
        What seconds are: of wall time, or of this process alone (``time.process_time``).

    Raises
    ------
    WsigenError
        As ``generate`` does for the same settings.
    """
    begin = clock()
    output = Path("estimate.ome.tiff")
    prepared = prepare(config, output)
    started = clock() - begin  # imports, the model loaded, every input checked: a run does the same
    workers = Workers.of(config)
    speed = measure_speed(prepared, workers.threads, clock, _scratch(run_dir_of(config, output)))
    projection = project_run(prepared.manifest, prepared.card, prepared.layout)
    plans = plans_of(prepared.manifest)
    calls = [count_rows(prepared, plan) for plan in plans]
    model = load_shared_model(prepared.manifest.model, prepared.manifest.device, prepared.manifest.precision)
    halo = model.equal_halo(WINDOW) if model.halo else BLENDED_HALO
    glass = prepared.manifest.glass["index"]
    windows = tissue_windows(prepared.layout, int(prepared.manifest.passes[-1]["factor"]), glass)
    many = _at_once(workers, prepared.manifest.device)
    share = tissue_share(prepared.layout, glass)
    seconds = started + _decoded_area(windows, prepared.manifest, 0.0) * speed.file
    for count, plan in zip(calls, plans, strict=True):
        traffic = traffic_of(prepared, plan)
        called = count * speed.call + share * guide_seconds(plans, plan.index, halo, speed)
        work = _of_worker(workers, called, state_seconds(traffic, prepared, speed))
        tasks = len(traffic.active) * (2 * plan.steps + 1)
        seconds += max(work / max(1, min(many, len(traffic.active))), tasks * DISPATCH_S)
    area = _decoded_area(windows, prepared.manifest, halo)
    seconds += _of_worker(workers, area * speed.decode, area * speed.pack) / min(many, projection.blocks)
    if model.has_norms:
        measured = sum(min(NORM_WINDOWS, len(plan.grid)) * plan.side**2 for plan in plans)
        seconds += measured * speed.decode * CALIBRATION_COST
    return Estimate(sum(calls), int(windows.sum()), seconds, projection, workers)


def traffic_of(prepared: Prepared, plan: PassPlan) -> PassTraffic:
    """What a pass of a prepared run reads and writes."""
    m = prepared.manifest
    active = active_chunks(prepared.layout, plan, m.glass["index"])
    return PassTraffic(plan, active, prepared.card.latent.channels, m.sampling["sampler"] == "dpm++")


def state_seconds(traffic: PassTraffic, prepared: Prepared, speed: Speed) -> float:
    """Seconds of one worker for a pass's state and noise: read, checked, drawn, written and flushed."""
    total, plan = traffic.total(), traffic.plan
    fields = 1 + (plan.steps if float(prepared.manifest.sampling["eta"]) > 0.0 else 0)
    noise = len(traffic.active) * min(plan.chunk, plan.height) * min(plan.chunk, plan.width) * fields * speed.noise
    return total.read * speed.read + total.written * speed.write + noise


def count_rows(prepared: Prepared, plan: PassPlan) -> int:
    """Rows of model calls of one pass of a prepared run."""
    sampling = prepared.manifest.sampling
    glass = prepared.manifest.glass["index"]
    return count_calls(prepared.card, prepared.layout, plan, glass, float(sampling["guidance"]), int(sampling["batch"]))


def guide_seconds(plans: list[PassPlan], index: int, halo: float, speed: Speed) -> float:
    """Seconds of one worker until a pass whose every pixel is tissue has encoded the picture it starts from.

    Parameters
    ----------
    halo:
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


def _of_worker(workers: Workers, called: float, beside: float) -> float:
    """Seconds of a worker that calls the model and does other things beside: at once where tasks share an accelerator.

    On a CPU both take the same core, and one waits for the other.
    """
    return max(called, beside) if workers.accelerated and workers.tasks_at_once > 1 else called + beside


def _scratch(run_dir: str | Path) -> Path | None:
    """The folder that exists where a run will lie, if files can be written there; an object store is taken for the system's."""
    place = as_place(run_dir)
    if not isinstance(place, Path):
        return None
    found = existing_parent(place)
    return found if os.access(found, os.W_OK) else None


def tissue_windows(layout: Layout, factor: int, glass: int | None) -> NDArray[np.bool_]:
    """Decoded windows that hold tissue, bool ``[I, J]``, from a coarse class map."""
    side = WINDOW * factor
    box = Box(0, 0, -(-layout.height // side), -(-layout.width // side))
    fine = layout.class_map(Box(0, 0, box.height * 8, box.width * 8), side // 8)
    tissue = np.ones_like(fine, dtype=bool) if glass is None else fine != glass
    return np.asarray(tissue.reshape(box.height, 8, box.width, 8).any(axis=(1, 3)))


def _decoded_area(windows: NDArray[np.bool_], manifest: Manifest, halo: float) -> float:
    """Latent pixels in the windows that hold tissue and in their halos."""
    heights, widths = (_with_halos(int(manifest.passes[-1][extent]), halo) for extent in ("height", "width"))
    return float((windows * np.outer(heights, widths)).sum())


def _with_halos(extent: int, halo: float) -> list[float]:
    """Sides of the decoded windows along an axis, with their halos inside the canvas, latent px."""
    starts = range(0, extent, WINDOW)
    return [min(extent, start + WINDOW + halo) - max(0, start - halo) for start in starts]
