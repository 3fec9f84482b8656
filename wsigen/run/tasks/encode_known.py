"""What is known of a slide that is continued, as latents or cells of a grid: encoded before a pass, kept with its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box, lattice_windows
from wsigen.grids.mean_colour import mean_colours
from wsigen.run.tasks.context import PassContext
from wsigen.run.tasks.guide import ENCODE_HALO, ENCODE_WINDOW

if TYPE_CHECKING:
    from wsigen.models.card import GridCondition

Index = tuple[int, int]


def encode_known(pass_: PassContext, ij: Index) -> None:
    """Encode what is known of a chunk, window by window in bounded memory, and keep it; 0 in windows that nothing reads.

    Windows lie on a lattice of the canvas: what is known does not depend on how it is cut into chunks.
    """
    chunk = pass_.plan.grid.box(ij)
    out = np.zeros((pass_.state.channels, *chunk.shape), dtype=np.float32)
    encode = _cells if pass_.plan.network == "grid" else _latents
    for part in lattice_windows(chunk, ENCODE_WINDOW):
        if pass_.near_free(part):
            y, x = part.y0 // ENCODE_WINDOW * ENCODE_WINDOW, part.x0 // ENCODE_WINDOW * ENCODE_WINDOW
            window = Box(y, x, y + ENCODE_WINDOW, x + ENCODE_WINDOW).intersect(pass_.plan.grid.canvas)
            values = encode(pass_, window)[(slice(None), *part.relative_to(window).slices)]
            out[(slice(None), *part.relative_to(chunk).slices)] = values
    pass_.state.write_known(ij, out)


def _latents(pass_: PassContext, window: Box) -> NDArray[np.float32]:
    """Latents of the slide, averaged to the um/px of the pass and encoded, ``(C, h, w)``."""
    around = window.dilate(ENCODE_HALO).intersect(pass_.plan.grid.canvas)
    rgb = pass_.run.continued.pixels(around.scale(pass_.plan.factor), pass_.plan.scale)
    with pass_.run.model_slot():
        latents = pass_.run.model.autoencoder.encode(rgb)
    return latents[(slice(None), *window.relative_to(around).slices)]


def _cells(pass_: PassContext, window: Box) -> NDArray[np.float32]:
    """Cells of the slide's own grid of mean colours, standardised, ``(D, h, w)``."""
    told = cast("GridCondition", pass_.run.model.card.grid)
    rgb = pass_.run.continued.pixels(window.scale(pass_.plan.factor), pass_.plan.scale)
    values = mean_colours(rgb[None], pass_.plan.factor)[0]
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (told.mean, told.std))
    return (values - mean) / std
