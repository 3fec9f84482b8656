"""What a slide will cost: model calls counted on the plan, seconds from a short measurement, disk and memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from wsigen.classes import UNKNOWN
from wsigen.config import RunConfig
from wsigen.engine.memory import Projection, gib
from wsigen.generation import Workers
from wsigen.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.manifest import Manifest
from wsigen.preparation import Prepared, prepare
from wsigen.projection import plans_of, project_run
from wsigen.sampling.multiscale import PassPlan
from wsigen.tasks.context import load_shared_model
from wsigen.tasks.decode import WINDOW
from wsigen.tasks.predict import calls_of_crop

SAMPLED_CHUNKS = 24
"""Chunks whose crops are counted exactly; more are extrapolated."""

MEASURED_BATCHES = 5


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
        Of model time over all workers, from a short measurement on this machine.
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
        memory = self.projection.total(self.workers.count, self.workers.processes)
        return [
            f"model calls:  {self.calls:,} crops, {self.windows:,} decoded windows",
            f"time:         about {self.seconds / 60:.1f} minutes with {where}",
            f"memory:       {gib(memory)} ({gib(self.projection.worker)} a worker, on top of its process)",
            f"disk:         {gib(self.projection.disk_state)} of state, {gib(self.projection.disk_output)} of tiles and slide",
        ]


def estimate(config: RunConfig) -> Estimate:
    """Count and measure without generating anything.

    Raises
    ------
    WsigenError
        As ``generate`` does for the same settings.
    """
    prepared = prepare(config, Path("estimate.ome.tiff"))
    workers = Workers.of(config)
    calls = sum(count_calls(prepared, plan) for plan in plans_of(prepared.manifest))
    windows = _count_windows(prepared.layout, prepared.manifest)
    per_call, per_window = _measure(prepared, workers.threads)
    seconds = (calls * per_call + windows * per_window) / workers.count
    return Estimate(calls, windows, seconds, project_run(prepared.manifest, prepared.card, prepared.layout), workers)


def count_calls(prepared: Prepared, plan: PassPlan) -> int:
    """Rows of model calls of one pass: exact for a sample of chunks at the first step, scaled to all chunks and steps."""
    glass = prepared.manifest.glass["index"]
    grid = list(plan.grid)
    picks = [grid[k] for k in sorted({round(k) for k in np.linspace(0, len(grid) - 1, SAMPLED_CHUNKS)})]
    counted = sum(_calls_of_chunk(prepared, plan, ij, glass) for ij in picks)
    return round(counted * len(grid) / len(picks) * plan.steps)


def _calls_of_chunk(prepared: Prepared, plan: PassPlan, ij: tuple[int, int], glass: int | None) -> int:
    chunk = plan.grid.box(ij)
    inside = chunk.dilate(plan.side // 2).intersect(plan.grid.canvas)
    classes = prepared.layout.class_map(inside, plan.cell_px)
    windows = [classes[c.box.relative_to(inside).slices] for c in plan.crop_plan().crops(0, chunk)]
    model = load_shared_model(prepared.manifest.model, prepared.manifest.device, prepared.manifest.precision)
    guidance = float(prepared.manifest.sampling["guidance"])
    batch = int(prepared.manifest.sampling["batch"])
    rows = sum(len(calls_of_crop(model, w, guidance)) for w in windows if glass is None or (w != glass).any())
    return -(-rows // batch) * batch


def _count_windows(layout: Layout, manifest: Manifest) -> int:
    """Decoded windows that hold tissue, from a coarse class map."""
    side = WINDOW * int(manifest.passes[-1]["factor"])
    box = Box(0, 0, -(-layout.height // side), -(-layout.width // side))
    fine = layout.class_map(Box(0, 0, box.height * 8, box.width * 8), side // 8)
    glass = manifest.glass["index"]
    tissue = np.ones_like(fine, dtype=bool) if glass is None else fine != glass
    return int(tissue.reshape(box.height, 8, box.width, 8).any(axis=(1, 3)).sum())


def _measure(prepared: Prepared, threads: int) -> tuple[float, float]:
    """Seconds per row of a model call and per decoded window: medians of a few, on this machine."""
    import torch

    from wsigen.models.conditioning import conditions_of

    torch.set_num_threads(threads)
    m, card = prepared.manifest, prepared.card
    model = load_shared_model(m.model, m.device, m.precision)
    batch, side = int(m.sampling["batch"]), card.crop_latent
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((batch, card.latent.channels, side, side)).astype(np.float32)
    condition = conditions_of(card, np.full((side, side), UNKNOWN, dtype=np.uint8))[0][0]
    times = []
    for _ in range(MEASURED_BATCHES):
        begin = perf_counter()
        model.predict(latents, int(m.passes[-1]["timesteps"][0]), [condition] * batch, 0)
        times.append(perf_counter() - begin)
    window = rng.standard_normal((card.latent.channels, WINDOW + 16, WINDOW + 16)).astype(np.float32)
    model.decode(window)
    begin = perf_counter()
    model.decode(window)
    return median(times) / batch, perf_counter() - begin
