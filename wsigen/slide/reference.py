"""`Reference`: boxes of a reference image or slide, resized to any canvas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsigen.base.errors import ReferenceImageError
from wsigen.base.geometry import Box
from wsigen.slide.reference_sources import Source, check_complete, open_source
from wsigen.slide.resample import apply, taps

MIN_SIDE_PX = 64
"""A smaller reference says nothing about a slide."""

READ_PX = 2**24
"""Source pixels read at a time: a larger read is cut in two."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image or slide known by its path; every process opens it for itself.

    Attributes
    ----------
    path:
        The file.
    height, width:
        Size at full resolution (px).
    mpp:
        Micrometres per pixel, or None if the file does not say.
    """

    path: str
    height: int
    width: int
    mpp: float | None

    def region(self, box: Box, canvas: tuple[int, int]) -> np.ndarray:
        """Return the pixels of ``box`` on the reference resized to ``canvas``.

        A pure function: the value of a pixel does not depend on the box it is read with.

        Parameters
        ----------
        box:
            In pixels of the canvas, on it.
        canvas:
            ``(height, width)`` the whole reference is resized to: area mean down, cubic up.

        Returns
        -------
        uint8 ``[box.height, box.width, 3]``, RGB.

        Raises
        ------
        ReferenceImageError
            If the file cannot be read (any more).
        """
        out = np.empty((*box.shape, 3), np.uint8)
        if not box.empty:
            source = open_source(self.path)
            _fill(out, source, source.level_for(self.height / canvas[0]), box, canvas)
        return out


def open_reference(path: str | Path) -> Reference:
    """Open a reference: slides through tiffslide, every other image through libvips.

    Reads a plain image once to its end, so that a truncated one is found before a run and not in it.

    Raises
    ------
    ReferenceImageError
        If it is missing, not an image, truncated, or smaller than 64 px.
    """
    path = Path(path)
    if not path.is_file():
        raise ReferenceImageError(f"{path}: no such reference image; check the path given to --reference")
    source = open_source(str(path.resolve()))
    height, width = source.sizes[0]
    if min(height, width) < MIN_SIDE_PX:
        raise ReferenceImageError(
            f"{path}: the reference is {width} x {height} px, too small; give one of at least {MIN_SIDE_PX} px"
        )
    check_complete(str(path.resolve()), source)
    return Reference(str(path.resolve()), height, width, source.mpp)


def _fill(out: np.ndarray, source: Source, level: int, box: Box, canvas: tuple[int, int]) -> None:
    height, width = source.sizes[level]
    rows = taps(box.y0, box.y1, canvas[0], height)
    columns = taps(box.x0, box.x1, canvas[1], width)
    (y0, y1), (x0, x1) = rows.span, columns.span
    if (y1 - y0) * (x1 - x0) <= READ_PX or max(box.shape) == 1:
        out[...] = apply(source.read(level, Box(y0, x0, y1, x1)), rows, columns)
    elif box.height >= box.width:
        middle = box.height // 2
        _fill(out[:middle], source, level, Box(box.y0, box.x0, box.y0 + middle, box.x1), canvas)
        _fill(out[middle:], source, level, Box(box.y0 + middle, box.x0, box.y1, box.x1), canvas)
    else:
        middle = box.width // 2
        _fill(out[:, :middle], source, level, Box(box.y0, box.x0, box.y1, box.x0 + middle), canvas)
        _fill(out[:, middle:], source, level, Box(box.y0, box.x0 + middle, box.y1, box.x1), canvas)
