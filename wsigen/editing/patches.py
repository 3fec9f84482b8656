"""What of a window goes into the slide's file: the pixels that were made, in px of the file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.run.prepare import Prepared
from wsigen.sampling.known import NEVER
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import ImageSource, open_image
from wsigen.slide.resample import apply, taps
from wsigen.slide.splice import Patch

STRIP_PX = 2**22
"""Pixels of a window that are held at a time."""


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

    Raises
    ------
    OutputError
        If there is no room for them beside the window.

    Notes
    -----
    **Memory bound.** `STRIP_PX` pixels: they lie in a nameless file beside the window, and are mapped from there.
    """
    image, changed, factor = open_image(made), _changed(prepared), prepared.spec.passes[-1].factor
    box = _in_file(window, placed)

    def pixels(strip: Box) -> NDArray[np.uint8]:
        return _pixels(image, window, placed, strip)

    def mask(strip: Box) -> NDArray[np.bool_]:
        ys, xs = (each // factor for each in _nearest(strip, window, placed))
        return changed[np.ix_(ys, xs)]

    with refusing(OutputError, f"{made}: its pixels cannot be kept", "free disk space, then give the same command again"):
        return Patch(box, _on_disk(made.parent, box, pixels, 3), _on_disk(made.parent, box, mask))


def _changed(prepared: Prepared) -> NDArray[np.bool_]:
    """Which latent px of a window are made, bool ``(h, w)``."""
    plan, continued, glass = prepared.spec.passes[-1], prepared.continued, prepared.spec.glass.index
    assert continued is not None
    canvas = plan.grid.canvas
    classes = prepared.layout.class_map(canvas, plan.cell_px)
    bare = np.zeros(classes.shape, dtype=bool) if glass is None else classes == glass
    return np.asarray(continued.starts(plan, canvas, bare) != NEVER)


def _on_disk(folder: Path, box: Box, of_strip: Callable[[Box], NDArray[Any]], *more: int) -> NDArray[Any]:
    """An array of a box, made strip by strip; a full disk is an error here, and none of the map's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        for strip in _strips(box):
            values = of_strip(strip)
            file.write(np.ascontiguousarray(values).data)
        file.flush()
        return np.memmap(file, values.dtype, "r", shape=(*box.shape, *more))


def _strips(box: Box) -> Iterator[Box]:
    step = max(1, STRIP_PX // box.width)
    for top in range(box.y0, box.y1, step):
        yield Box(top, box.x0, min(top + step, box.y1), box.x1)


def _in_file(window: Box, placed: PlacedImage) -> Box:
    """A window in px of the slide's file."""
    (y0, y1), (x0, x1) = (
        (round(a * full / own), min(full, round(b * full / own)))
        for a, b, full, own in (
            (window.y0, window.y1, placed.source.height, placed.size[0]),
            (window.x0, window.x1, placed.source.width, placed.size[1]),
        )
    )
    return Box(y0, x0, y1, x1)


def _nearest(strip: Box, window: Box, placed: PlacedImage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of a window in which the px of a strip of the file have their middle."""
    fy, fx = placed.size[0] / placed.source.height, placed.size[1] / placed.source.width
    ys = np.clip(((np.arange(strip.y0, strip.y1) + 0.5) * fy).astype(int) - window.y0, 0, window.height - 1)
    xs = np.clip(((np.arange(strip.x0, strip.x1) + 0.5) * fx).astype(int) - window.x0, 0, window.width - 1)
    return ys, xs


def _pixels(image: ImageSource, window: Box, placed: PlacedImage, strip: Box) -> NDArray[np.uint8]:
    """A strip of a window in px of the slide's file: cubic where they are finer than the model's, else area means."""
    source, size = placed.source, placed.size
    if size == (source.height, source.width):
        return image.region(strip.relative_to(window), window.shape)
    rows = taps(strip.y0, strip.y1, source.height, size[0])
    columns = taps(strip.x0, strip.x1, source.width, size[1])
    for axis, low, high in ((rows, window.y0, window.y1), (columns, window.x0, window.x1)):
        np.clip(axis.index, low, high - 1, out=axis.index)
    (top, bottom), (left, right) = rows.span, columns.span
    part = image.region(Box(top, left, bottom, right).relative_to(window), window.shape)
    return apply(part, rows, columns)
