"""What is known of a slide that is continued, as latents or cells of a grid: encoded before a pass, kept with its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.grids.mean_colour import mean_colours
from wsigen.run.tasks.context import PassContext
from wsigen.run.tasks.encode import encode_pixels, encode_windows

if TYPE_CHECKING:
    from wsigen.models.card import GridCondition

Index = tuple[int, int]


def encode_known(pass_: PassContext, ij: Index) -> None:
    """Encode what is known of a chunk and keep it; 0 in windows that nothing reads."""
    encode = _cells if pass_.plan.network == "grid" else _latents
    chunk = pass_.plan.grid.box(ij)
    pass_.state.write_known(ij, encode_windows(pass_, chunk, lambda window: encode(pass_, window), pass_.near_free))


def _latents(pass_: PassContext, window: Box) -> NDArray[np.float32]:
    """Latents of the slide, averaged to the um/px of the pass and encoded, ``(C, h, w)``."""
    return encode_pixels(pass_, window, lambda px: pass_.run.continued.pixels(px, pass_.plan.scale))


def _cells(pass_: PassContext, window: Box) -> NDArray[np.float32]:
    """Cells of the slide's own grid of mean colours, standardised, ``(D, h, w)``."""
    told = cast("GridCondition", pass_.run.model.card.grid)
    rgb = pass_.run.continued.pixels(window.scale(pass_.plan.factor), pass_.plan.scale)
    values = mean_colours(rgb[None], pass_.plan.factor)[0]
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (told.mean, told.std))
    return (values - mean) / std
