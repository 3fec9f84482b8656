"""`PointLayout`: labelled discs (points, capture spots) on an image; everywhere else nobody knows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.layout.layout import inner_box


@dataclass(frozen=True, slots=True, eq=False)
class PointLayout:
    """Discs of one radius; where discs of different classes overlap the class is unknown. See `Layout`.

    Attributes
    ----------
    height, width : canvas (px)
    centres : float64 [n, 2] of (x, y) in px of the canvas
    labels : uint8 [n], class indices
    radius : px of the canvas
    """

    height: int
    width: int
    centres: NDArray[np.float64]
    labels: NDArray[np.uint8]
    radius: float

    def class_map(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Return uint8 ``[box.height, box.width]``: the class at every cell's centre (`Layout.class_map`)."""
        inner, rows, columns = inner_box(box, cell_px, self.height, self.width)
        out = np.full(inner.shape, UNKNOWN, np.uint8)
        contested = np.zeros(inner.shape, bool)
        for which in np.flatnonzero(self._near(inner, cell_px)):
            (x, y), label = self.centres[which], self.labels[which]
            part = self._cells(x, y, cell_px).intersect(inner)
            if part.empty:
                continue
            py = (np.arange(part.y0, part.y1) + 0.5) * cell_px - y
            px = (np.arange(part.x0, part.x1) + 0.5) * cell_px - x
            disc = py[:, None] ** 2 + px[None] ** 2 <= self.radius**2
            here = part.relative_to(inner).slices
            contested[here] |= disc & (out[here] != UNKNOWN) & (out[here] != label)
            out[here][disc] = label
        out[contested] = UNKNOWN
        return out[np.ix_(rows, columns)]

    def _cells(self, x: float, y: float, cell_px: int) -> Box:
        y0, x0 = math.floor((y - self.radius) / cell_px), math.floor((x - self.radius) / cell_px)
        return Box(y0, x0, math.ceil((y + self.radius) / cell_px) + 1, math.ceil((x + self.radius) / cell_px) + 1)

    def _near(self, inner: Box, cell_px: int) -> NDArray[np.bool_]:
        x, y = self.centres.T
        reach = self.radius + cell_px
        across = (x >= inner.x0 * cell_px - reach) & (x <= inner.x1 * cell_px + reach)
        return np.asarray(across & (y >= inner.y0 * cell_px - reach) & (y <= inner.y1 * cell_px + reach))
