"""`CellMapLayout`: a small class map spread smoothly over a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.layout.smooth_noise import SplineTaps, spline_grid, spline_taps
from wsigen.layout.specks import without_specks

SPECK = 1 / 8
"""Share of a cell of the map that is a speck: left where three classes meet."""


@dataclass(frozen=True, slots=True)
class CellMapLayout(Layout):
    """A class map of few cells, stretched over the slide.

    Every class is interpolated for itself (cubic B-spline of its one-hot map) and the largest wins, so that borders are
    smooth and no class grows at the cost of another one by its index.

    Attributes
    ----------
    height, width : int
        Of the slide (px).
    cells : ndarray
        uint8 ``[h, w]``: class indices or ``UNKNOWN``.
    """

    height: int
    width: int
    cells: NDArray[np.uint8]

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """The class of the greatest weight where rows and columns cross, without specks (`Layout.classes`)."""
        cell_area = self.height * self.width / self.cells.size
        largest = int(SPECK * cell_area / cell_px**2)
        return without_specks(lambda around: self._interpolated(around, cell_px), box, self.canvas(cell_px), largest)

    def _interpolated(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        ys = _taps(box.y0, box.y1, cell_px, self.height, self.cells.shape[0])
        xs = _taps(box.x0, box.x1, cell_px, self.width, self.cells.shape[1])
        i, j = (np.clip(np.arange(*taps.span), 0, side - 1) for taps, side in zip((ys, xs), self.cells.shape, strict=True))
        nodes = self.cells[np.ix_(i, j)]
        best = np.full((len(ys.first), len(xs.first)), -1.0)
        out = np.zeros(best.shape, np.uint8)
        for value in np.unique(nodes):
            weight = spline_grid((nodes == value).astype(np.float32), ys, xs)
            more = weight > best
            out[more] = value
            best[more] = weight[more]
        return out


def _taps(start: int, stop: int, cell_px: int, slide_px: int, cells: int) -> SplineTaps:
    """Taps of the centres of slide cells ``[start, stop)`` on a side of ``cells`` map cells."""
    centre = (np.arange(start, stop, dtype=np.float64) + 0.5) * cell_px
    return spline_taps(centre * (cells / slide_px) - 0.5)
