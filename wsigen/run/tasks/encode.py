"""Encoding a box window by window, in bounded memory.

Windows are whole windows of a lattice of the canvas, even where a box holds a part of one: what is encoded does not depend on
how a canvas is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box, lattice_windows
from wsigen.run.tasks.context import PassContext

WINDOW = 128
"""Side of an encoded window in latent px: bounds the encoder's memory."""

HALO = 8
"""Context around an encoded window in latent px; what a window does not see differs by less than the noise added next."""

Pixels = Callable[[Box], NDArray[np.uint8]]
"""Gives uint8 ``(h, w, 3)`` of a box in image px of a pass."""


def encode_windows(
    pass_: PassContext, box: Box, encode: Callable[[Box], NDArray[np.float32]], wanted: Callable[[Box], bool] = lambda _: True
) -> NDArray[np.float32]:
    """Encode a box of a pass, float32 ``(C, h, w)``; 0 where nothing is wanted.

    Parameters
    ----------
    encode : callable
        Gives float32 ``(C, h, w)`` of a window, which lies on the canvas.
    wanted : callable
        Whether the part of the box that lies in a window is wanted at all.
    """
    out = np.zeros((pass_.state.channels, *box.shape), dtype=np.float32)
    for part in lattice_windows(box, WINDOW):
        if wanted(part):
            y, x = part.y0 // WINDOW * WINDOW, part.x0 // WINDOW * WINDOW
            window = Box(y, x, y + WINDOW, x + WINDOW).intersect(pass_.plan.grid.canvas)
            values = encode(window)
            out[(slice(None), *part.relative_to(box).slices)] = values[(slice(None), *part.relative_to(window).slices)]
    return out


def encode_pixels(pass_: PassContext, window: Box, pixels: Pixels) -> NDArray[np.float32]:
    """Encode the pixels of a window with its context, float32 ``(C, h, w)``."""
    around = window.dilate(HALO).intersect(pass_.plan.grid.canvas)
    rgb = pixels(around.scale(pass_.plan.factor))
    with pass_.run.model_slot():
        latents = pass_.run.model.autoencoder.encode(rgb)
    return latents[(slice(None), *window.relative_to(around).slices)]
