"""The three half-steps of a chunk: start, denoise, assemble."""

from __future__ import annotations

from functools import reduce

import numpy as np

from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.run.tasks.guide import encode_region, guide_of
from wsigen.run.tasks.predict import StepSettings, calls_of_crop, estimate_crops
from wsigen.run.tasks.state import demand_finite, held_pixels, read_state, start_noise
from wsigen.sampling.schedule import add_noise, ddim_sigma, ddim_step, extrapolate

Index = tuple[int, int]


def start(run: RunContext, part: PassContext, ij: Index) -> int:
    """Half-step 0: write y[0] of a chunk, noise or the re-noised guide. Returns the model calls made (0)."""
    box = part.plan.grid.box(ij)
    y = start_noise(run, part, box)
    if part.plan.start != "noise":
        x0 = encode_region(run, guide_of(run, part), box, part.plan)
        y = add_noise(x0, y, part.schedule.abar[0])
    part.state.write_latents(0, ij, y)
    return 0


def denoise(run: RunContext, part: PassContext, ij: Index, step: int) -> int:
    """Half-step 2 step + 1: run the crops centred in a chunk and write their weighted sum. Returns the model calls.

    Crops without a pixel to denoise never reach the model, nor is the state read where no other crop lies. The sum covers the
    chunk dilated by half a crop.
    """
    chunk = part.plan.grid.box(ij)
    reach = chunk.dilate(part.state.margin)
    inside = reach.intersect(part.plan.grid.canvas)
    _previous_estimate(run, part, step, ij)  # damage is found now, while what it was made from is there
    held = held_pixels(run, part, inside)
    crops = [c for c in part.crop_plan.crops(step, chunk) if not held[c.box.relative_to(inside).slices].all()]
    total = np.zeros((part.state.channels, *reach.shape), dtype=np.float32)
    if not crops:
        part.state.write_partial(step, ij, total)
        return 0
    settings = step_settings(run, part, step)
    around = reduce(Box.union, (c.box for c in crops))
    y, _ = read_state(run, part, step, around)
    classes = part.state.read_classes(around)
    windows = [c.box.relative_to(around).slices for c in crops]
    pairs = [(y[(slice(None), *w)], classes[w]) for w in windows]
    with run.model_slot():
        for crop, x0 in zip(crops, estimate_crops(run.model, settings, pairs), strict=True):
            total[(slice(None), *crop.box.relative_to(reach).slices)] += crop.weight * x0
    part.state.write_partial(step, ij, total)
    return sum(len(calls_of_crop(run.model.card, c, settings.guidance)) for _, c in pairs)


def assemble(run: RunContext, part: PassContext, ij: Index, step: int) -> int:
    """Half-step 2 step + 2: merge the 3x3 partials in row-major order and write y[step + 1]. Returns 0."""
    chunk = part.plan.grid.box(ij)
    y, held = read_state(run, part, step, chunk)
    x0 = np.zeros_like(y)
    near = [n for n in part.plan.grid.neighbourhood(ij) if part.state.activity[n]]
    common = {n: part.plan.grid.box(n).dilate(part.state.margin).intersect(chunk) for n in near}
    for (neighbour, box), partial in zip(common.items(), part.state.read_partials(step, common), strict=True):
        demand_finite(partial, part, 2 * step + 1, neighbour)
        x0[(slice(None), *box.relative_to(chunk).slices)] += partial
    x0 = np.where(held[None], run.glass_latent, x0)
    following = _reverse_step(run, part, step, ij, y, x0)
    part.state.write_history(step, ij, x0)
    part.state.write_latents(step + 1, ij, following)
    return 0


def step_settings(run: RunContext, part: PassContext, step: int) -> StepSettings:
    """What all crops of ``step`` share."""
    sampling = run.manifest.sampling
    return StepSettings(
        timestep=part.schedule.timesteps[step],
        abar=part.schedule.abar[step],
        guidance=float(sampling["guidance"]),
        level=part.plan.level,
        batch=int(sampling["batch"]),
    )


def _reverse_step(run: RunContext, part: PassContext, step: int, ij: Index, y: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """DDIM or DPM-Solver++ from y[step] with the merged estimate; noise, if any, is added once, from the global field."""
    eta = float(run.manifest.sampling["eta"])
    chunk = part.plan.grid.box(ij)
    here, there = part.schedule.abar[step], part.schedule.abar[step + 1]
    previous = _previous_estimate(run, part, step, ij)
    if previous is not None:
        x0 = extrapolate(x0, previous, part.schedule.abar[step - 1], here, there)
    noise = None
    if ddim_sigma(here, there, eta) > 0.0:
        seed = run.manifest.sampling["seed"]
        noise = normal_field(seed, Stream.STEP, chunk, y.shape[0], level=part.plan.index, step=step)
    return ddim_step(y, x0, here, there, eta, noise)


def _previous_estimate(run: RunContext, part: PassContext, step: int, ij: Index) -> np.ndarray | None:
    """x0[step - 1] of a chunk, for samplers that look back; None at the first step and for all others."""
    if step == 0 or run.manifest.sampling["sampler"] == "ddim":
        return None
    previous = part.state.read_history(step - 1, ij)
    demand_finite(previous, part, 2 * step, ij)
    return previous
