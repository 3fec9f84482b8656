"""What of a window goes into the slide's file: the pixels that were made, in px of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.run.prepare import Prepared
from wsigen.sampling.known import NEVER
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import open_image
from wsigen.slide.resample import apply, taps
from wsigen.slide.splice import Patch


def patch_of(made: Path, window: Box, placed: PlacedImage, prepared: Prepared) -> Patch:
    """The pixels of a window that are to be put into a slide's file.

    Parameters
    ----------
    made : Path
        The window, a slide of its own.
    window : Box
        Where it lies, px of the model.
    placed : PlacedImage
        The slide that is edited.
    prepared : Prepared
        The run that made the window.
    """
    image = open_image(made)
    pixels = image.region(Box(0, 0, *window.shape), window.shape)
    changed = _changed(prepared, window)
    if placed.size == (placed.source.height, placed.source.width):
        return Patch(window, pixels, changed)
    return _resampled(placed, window, pixels, changed)


def _changed(prepared: Prepared, window: Box) -> NDArray[np.bool_]:
    """Which pixels of a window are made, bool ``(h, w)``."""
    plan, continued, glass = prepared.spec.passes[-1], prepared.continued, prepared.spec.glass.index
    assert continued is not None
    canvas = plan.grid.canvas
    classes = prepared.layout.class_map(canvas, plan.cell_px)
    bare = np.zeros(classes.shape, dtype=bool) if glass is None else classes == glass
    made = continued.starts(plan, canvas, bare) != NEVER
    return np.repeat(np.repeat(made, plan.factor, axis=0), plan.factor, axis=1)[: window.height, : window.width]


def _resampled(placed: PlacedImage, window: Box, pixels: NDArray[np.uint8], changed: NDArray[np.bool_]) -> Patch:
    """The same in px of the slide's file: cubic where they are finer, else area means."""
    source, size = placed.source, placed.size
    (y0, y1, fy), (x0, x1, fx) = (
        (round(a * full / own), min(full, round(b * full / own)), own / full)
        for a, b, full, own in (
            (window.y0, window.y1, source.height, size[0]),
            (window.x0, window.x1, source.width, size[1]),
        )
    )
    rows = taps(y0, y1, source.height, size[0])
    columns = taps(x0, x1, source.width, size[1])
    for axis, low, high in ((rows, window.y0, window.y1), (columns, window.x0, window.x1)):
        np.clip(axis.index, low, high - 1, out=axis.index)
    (top, bottom), (left, right) = rows.span, columns.span
    part = pixels[top - window.y0 : bottom - window.y0, left - window.x0 : right - window.x0]
    ys = np.clip(((np.arange(y0, y1) + 0.5) * fy).astype(int) - window.y0, 0, window.height - 1)
    xs = np.clip(((np.arange(x0, x1) + 0.5) * fx).astype(int) - window.x0, 0, window.width - 1)
    return Patch(Box(y0, x0, y1, x1), apply(part, rows, columns), changed[np.ix_(ys, xs)])
