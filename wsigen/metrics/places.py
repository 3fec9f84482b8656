"""Where on one image crops may lie: any pixel of its tissue as the centre, if half of the crop is tissue."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsigen.geometry import Box
from wsigen.metrics.members import PackedMask

TISSUE_SHARE = 0.5
"""Share of a crop that must be tissue."""


class Field:
    """Places for crops of one size.

    Memory bound: one number a row of the mask beside its bits; a side holds the fields of all its slides.

    Parameters
    ----------
    mask:
        Tissue on a small view of the image.
    canvas:
        ``(height, width)`` of the image at the evaluation's um/px (px).
    side_px:
        Side of a crop, at most the canvas (px).
    """

    def __init__(self, mask: PackedMask, canvas: tuple[int, int], side_px: int) -> None:
        self.mask, self.canvas, self.side_px = mask, canvas, side_px
        self.single = canvas == (side_px, side_px)

    def draw(self, rng: np.random.Generator) -> Box | None:
        """One place, or None if that is not half tissue."""
        rows, columns = self.mask.shape
        row, column = self._cell(int(rng.integers(self.mask.count)))
        y = (row + rng.random()) * self.canvas[0] / rows
        x = (column + rng.random()) * self.canvas[1] / columns
        y0 = min(max(round(y - self.side_px / 2), 0), self.canvas[0] - self.side_px)
        x0 = min(max(round(x - self.side_px / 2), 0), self.canvas[1] - self.side_px)
        box = Box(y0, x0, y0 + self.side_px, x0 + self.side_px)
        return box if self._share(box) >= TISSUE_SHARE else None

    def _cell(self, k: int) -> tuple[int, int]:
        """Row and column of the ``k``-th cell of tissue in row-major order."""
        row = int(np.searchsorted(self._counted, k, side="right"))
        before = int(self._counted[row - 1]) if row else 0
        return row, int(np.flatnonzero(self.mask.rows(row, row + 1)[0])[k - before])

    @cached_property
    def _counted(self) -> NDArray[np.int64]:
        """Cells of tissue up to the end of every row."""
        return np.cumsum([int(self.mask.rows(y, y + 1).sum()) for y in range(self.mask.shape[0])])

    def _share(self, box: Box) -> float:
        rows, columns = (n / c for n, c in zip(self.mask.shape, self.canvas, strict=True))
        y0, x0 = int(box.y0 * rows), int(box.x0 * columns)
        y1, x1 = max(y0 + 1, round(box.y1 * rows)), max(x0 + 1, round(box.x1 * columns))
        return float(self.mask.rows(y0, y1)[:, x0:x1].mean())
