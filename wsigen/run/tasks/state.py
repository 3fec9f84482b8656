"""Reading y[s] with held pixels put in their place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DamagedChunkError
from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.sampling.known import hold

Array = NDArray[np.float32]


def held_pixels(run: RunContext, part: PassContext, box: Box) -> NDArray[np.bool_]:
    """Where glass is: bool ``[h, w]``."""
    classes = part.state.read_classes(box)
    if run.glass_index is None:
        return np.zeros(classes.shape, dtype=bool)
    return classes == run.glass_index


def start_noise(run: RunContext, part: PassContext, box: Box) -> Array:
    """The start field of a pass on ``box``, float32 ``[C, h, w]``."""
    seed = run.manifest.sampling["seed"]
    return normal_field(seed, Stream.START, box, part.state.channels, level=part.plan.index)


def read_state(run: RunContext, part: PassContext, step: int, box: Box) -> tuple[Array, NDArray[np.bool_]]:
    """Read y[step] on ``box`` and the mask of held pixels, which follow the forward process of glass.

    Raises
    ------
    DamagedChunkError
        If a chunk is damaged, or a pixel that is not held was never written (a key was missing).
    """
    held = held_pixels(run, part, box)
    nothing = np.empty((part.state.channels, *box.shape), dtype=np.float32)
    y = nothing if held.all() else part.state.read_latents(step, box)
    if held.any():
        abar = part.schedule.abar[step]
        noise = start_noise(run, part, box) if abar < 1.0 else np.zeros_like(y)
        y = hold(y, held, run.glass_latent, noise, abar)
    for ij in part.plan.grid.overlapping(box):
        chunk = part.plan.grid.box(ij).intersect(box).relative_to(box)
        demand_finite(y[(slice(None), *chunk.slices)], part, 2 * step, ij)
    return y, held


def demand_finite(values: Array, part: PassContext, half_step: int, ij: tuple[int, int]) -> None:
    """Name the chunk whose values are not finite: its key was missing, or a model made NaN (DamagedChunkError)."""
    if not np.isfinite(values).all():
        key = f"pass-{part.plan.index}/{part.state.key(half_step, ij)}"
        raise DamagedChunkError(f"{key}: missing or not finite", key)
