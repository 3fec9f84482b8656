"""The three half-steps of a chunk: start, denoise, assemble."""

from __future__ import annotations

from functools import reduce

import numpy as np

from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.run.tasks.context import PassContext
from wsigen.run.tasks.guide import encode_guide
from wsigen.run.tasks.predict import StepSettings, View, calls_of_crop, estimate_crops
from wsigen.sampling.schedule import add_noise, ddim_sigma, ddim_step, extrapolate

Index = tuple[int, int]

GRAIN = 2.0**-16
"""What a crop adds to a sum is rounded to multiples of this, 1.5e-5 of latents that vary by about 1."""


def start(pass_: PassContext, ij: Index) -> None:
    """Half-step 0: write y[0] of a chunk, noise or the re-noised guide."""
    box = pass_.plan.grid.box(ij)
    y = pass_.start_noise(box)
    if pass_.plan.start != "noise":
        y = add_noise(encode_guide(pass_, box), y, pass_.plan.schedule.abar[0])
    pass_.state.write_latents(0, ij, y)


def denoise(pass_: PassContext, ij: Index, step: int) -> int:
    """Half-step 2 step + 1: run the crops centred in a chunk and write their weighted sum. Returns the model calls.

    Crops without a pixel to denoise never reach the model, nor is the state read where no other crop lies. The sum covers the
    chunk dilated by half a crop.
    """
    chunk = pass_.plan.grid.box(ij)
    reach = chunk.dilate(pass_.state.margin)
    inside = reach.intersect(pass_.plan.grid.canvas)
    _previous_estimate(pass_, step, ij)  # damage shows now, while what it was made from is there
    held = pass_.starts(inside) > step
    crops = [c for c in pass_.crop_plan.crops(step, chunk) if not held[c.box.relative_to(inside).slices].all()]
    total = np.zeros((pass_.state.channels, *reach.shape), dtype=np.float32)
    if not crops:
        pass_.state.write_partial(step, ij, total)
        return 0
    settings = step_settings(pass_, step)
    around = reduce(Box.union, (c.box for c in crops))
    y, _ = pass_.read(step, around)
    classes = pass_.state.read_classes(around)
    windows = [c.box.relative_to(around).slices for c in crops]
    grids = pass_.grid_windows([c.box for c in crops])
    views = [View(y[(slice(None), *w)], classes[w], grid) for w, grid in zip(windows, grids, strict=True)]
    with pass_.run.model_slot():
        for crop, x0 in zip(crops, estimate_crops(pass_.denoiser, settings, views), strict=True):
            total[(slice(None), *crop.box.relative_to(reach).slices)] += rounded(crop.weight * x0)
    pass_.state.write_partial(step, ij, total)
    return sum(len(calls_of_crop(pass_.denoiser.card, view.classes, settings.guidance, view.grid)) for view in views)


def rounded(values: np.ndarray) -> np.ndarray:
    """Round values to multiples of `GRAIN`, float32.

    Sums of such numbers are exact in float32 while they stay below 256, in whatever order they are taken: overlapping crops
    give the same bits however the canvas is cut into chunks.
    """
    return np.asarray(np.rint(values * np.float32(1 / GRAIN)) * np.float32(GRAIN), dtype=np.float32)


def assemble(pass_: PassContext, ij: Index, step: int) -> None:
    """Half-step 2 step + 2: merge the 3x3 partials in row-major order and write y[step + 1]."""
    chunk = pass_.plan.grid.box(ij)
    y, known = pass_.read(step, chunk)
    x0 = np.zeros_like(y)
    near = [n for n in pass_.plan.grid.neighbourhood(ij) if pass_.state.activity[n]]
    common = {n: pass_.plan.grid.box(n).dilate(pass_.state.margin).intersect(chunk) for n in near}
    for (neighbour, box), partial in zip(common.items(), pass_.state.read_partials(step, common), strict=True):
        pass_.state.demand_finite(partial, 2 * step + 1, neighbour)
        x0[(slice(None), *box.relative_to(chunk).slices)] += partial
    x0 = np.where(known.held(step)[None], known.x0, x0)
    following = _reverse_step(pass_, step, ij, y, x0)
    pass_.state.write_history(step, ij, x0)
    pass_.state.write_latents(step + 1, ij, following)


def step_settings(pass_: PassContext, step: int) -> StepSettings:
    """What all crops of ``step`` share."""
    sampling = pass_.sampling
    return StepSettings(
        timestep=pass_.plan.schedule.timesteps[step],
        abar=pass_.plan.schedule.abar[step],
        guidance=sampling.guidance,
        level=pass_.plan.level,
        batch=sampling.batch,
    )


def _reverse_step(pass_: PassContext, step: int, ij: Index, y: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """DDIM or DPM-Solver++ from y[step] with the merged estimate; noise, if any, is added once, from the global field."""
    sampling = pass_.sampling
    chunk = pass_.plan.grid.box(ij)
    here, there = pass_.plan.schedule.abar[step], pass_.plan.schedule.abar[step + 1]
    previous = _previous_estimate(pass_, step, ij)
    if previous is not None:
        x0 = extrapolate(x0, previous, pass_.plan.schedule.abar[step - 1], here, there)
    noise = None
    if ddim_sigma(here, there, sampling.eta) > 0.0:
        noise = normal_field(sampling.seed, Stream.STEP, chunk, y.shape[0], level=pass_.plan.index, step=step)
    return ddim_step(y, x0, here, there, sampling.eta, noise)


def _previous_estimate(pass_: PassContext, step: int, ij: Index) -> np.ndarray | None:
    """x0[step - 1] of a chunk, for samplers that look back; None at the first step and for all others."""
    if step == 0 or not pass_.sampling.looks_back:
        return None
    previous = pass_.state.read_history(step - 1, ij)
    pass_.state.demand_finite(previous, 2 * step, ij)
    return previous
