"""Reading y[s] with held pixels put in their place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.errors import DamagedChunkError
from wsigen.geometry import Box
from wsigen.noise import Stream, normal_field
from wsigen.sampling.region import hold
from wsigen.tasks.context import PassContext, RunContext

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
    if held.all():
        y = np.empty((part.state.channels, *box.shape), dtype=np.float32)
    else:
        y = part.state.read_latents(step, box)
    if held.any():
        abar = part.schedule.abar[step]
        noise = start_noise(run, part, box) if abar < 1.0 else np.zeros_like(y)
        y = hold(y, held, run.glass_latent, noise, abar)
    _demand_finite(part, step, box, y)
    return y, held


def _demand_finite(part: PassContext, step: int, box: Box, y: Array) -> None:
    """Name the chunk of the first pixel that is not finite."""
    if np.isfinite(y).all():
        return
    _, ys, xs = np.nonzero(~np.isfinite(y))
    ij = ((box.y0 + int(ys[0])) // part.plan.chunk, (box.x0 + int(xs[0])) // part.plan.chunk)
    key = part.state.key(2 * step, ij)
    raise DamagedChunkError(f"pass {part.plan.index}: {key} is missing or not finite", key)
