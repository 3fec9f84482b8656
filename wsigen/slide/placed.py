"""`PlacedImage`: a slide that lies somewhere on another one, read in pixels of that one at any whole scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.slide.reading import ImageSource
from wsigen.slide.resample import mean_taps, weighted

RGB = NDArray[np.uint8]

READ_ROWS = 2**22
"""Pixels of full resolution that are held at a time where a coarser box is made of them."""


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image on a canvas.

    Attributes
    ----------
    source : ImageSource
        The image.
    size : tuple of int
        ``(height, width)`` it has in px of the canvas: its own, or what it is resampled to.
    at : tuple of int
        ``(y, x)`` of its corner on the canvas, px; below 0 where the canvas is a part of it.
    """

    source: ImageSource
    size: tuple[int, int]
    at: tuple[int, int]

    @property
    def box(self) -> Box:
        """Where it lies, px of the canvas (may reach beyond it)."""
        (y, x), (height, width) = self.at, self.size
        return Box(y, x, y + height, x + width)

    def pixels(self, box: Box, scale: int = 1) -> RGB:
        """Pixels of a box, which need not lie on the image: beyond its edges it is mirrored.

        A pure function: the value of a pixel does not depend on the box it is read with.

        Parameters
        ----------
        box : Box
            On the canvas, in px of ``scale`` canvas px.
        scale : int
            Each is the area mean of so many canvas px squared.

        Returns
        -------
        uint8 ``(h, w, 3)``.
        """
        if scale == 1:
            return self._full(box)
        (y, x), (height, width) = self.at, self.size
        if y % scale == 0 and x % scale == 0 and height % scale == 0 and width % scale == 0:
            coarse = PlacedImage(self.source, (height // scale, width // scale), (y // scale, x // scale))
            return coarse._full(box)  # by the image's own coarser levels, where it has them
        out = np.empty((*box.shape, 3), np.uint8)
        step = max(1, READ_ROWS // (box.width * scale * scale))
        for top in range(0, box.height, step):
            strip = Box(box.y0 + top, box.x0, min(box.y0 + top + step, box.y1), box.x1)
            fine = self._full(strip.scale(scale))
            rows, columns = (mean_taps(0, n, float(scale), n * scale) for n in strip.shape)
            out[top : top + strip.height] = np.rint(weighted(fine, rows, columns)).astype(np.uint8)
        return out

    def _full(self, box: Box) -> RGB:
        rows = _mirrored(np.arange(box.y0, box.y1) - self.at[0], self.size[0])
        columns = _mirrored(np.arange(box.x0, box.x1) - self.at[1], self.size[1])
        read = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        rgb = self.source.region(read, self.size)
        if rgb.shape[:2] == box.shape and rows[0] == read.y0 and columns[0] == read.x0:
            return rgb
        return rgb[np.ix_(rows - read.y0, columns - read.x0)]


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Positions on an axis of ``length`` px that goes back at its ends."""
    folded = index % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)
