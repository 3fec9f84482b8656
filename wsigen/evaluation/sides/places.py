"""Where on one image crops may lie: any pixel of its tissue as the centre, if half of the crop is tissue."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.evaluation.sides.members import PackedMask

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

    @property
    def cell_px(self) -> float:
        """Area of a cell of the mask in px of the canvas: images have cells of different sizes."""
        return self.canvas[0] * self.canvas[1] / (self.mask.shape[0] * self.mask.shape[1])

    @property
    def tissue_px(self) -> float:
        """Area of the tissue in px of the canvas."""
        return self.mask.count * self.cell_px

    def draw(self, rng: np.random.Generator) -> Box | None:
        """One place, or None if that is not half tissue."""
        rows, columns = self.mask.shape
        row, column = self._cell(int(rng.integers(self.mask.count)))
        y = (row + rng.random()) * self.canvas[0] / rows
        x = (column + rng.random()) * self.canvas[1] / columns
        y0 = min(max(round(y - self.side_px / 2), 0), self.canvas[0] - self.side_px)
        x0 = min(max(round(x - self.side_px / 2), 0), self.canvas[1] - self.side_px)
        box = Box(y0, x0, y0 + self.side_px, x0 + self.side_px)
        return box if self.tissue_at(y0, np.array([x0]))[0] else None

    def _cell(self, k: int) -> tuple[int, int]:
        """Row and column of the ``k``-th cell of tissue in row-major order."""
        row = int(np.searchsorted(self._counted, k, side="right"))
        before = int(self._counted[row - 1]) if row else 0
        return row, int(np.flatnonzero(self.mask.rows(row, row + 1)[0])[k - before])

    @cached_property
    def _counted(self) -> NDArray[np.int64]:
        """Cells of tissue up to the end of every row."""
        return np.cumsum([int(self.mask.rows(y, y + 1).sum()) for y in range(self.mask.shape[0])])

    def tissue_at(self, y0: int, x0s: NDArray[np.int64], share: float = TISSUE_SHARE) -> NDArray[np.bool_]:
        """Whether crops that begin in row ``y0`` at each of ``x0s`` show tissue on so large a share, bool ``[len(x0s)]``."""
        rows, columns = (n / c for n, c in zip(self.mask.shape, self.canvas, strict=True))
        top = int(y0 * rows)
        bottom = max(top + 1, round((y0 + self.side_px) * rows))
        left = (x0s * columns).astype(np.int64)
        right = np.maximum(left + 1, np.rint((x0s + self.side_px) * columns).astype(np.int64))
        counted = np.concatenate([[0], np.cumsum(self.mask.rows(top, bottom).sum(axis=0))])
        return np.asarray(counted[right] - counted[left] >= share * (bottom - top) * (right - left), dtype=bool)

    def lattice(self, stride_px: int, share: float) -> NDArray[np.int64]:
        """Corners (y0, x0) of the crops every ``stride_px`` and at the far edges that show so much tissue, int64 ``[n, 2]``."""
        ys, xs = (np.unique([*range(0, c - self.side_px, stride_px), c - self.side_px]) for c in self.canvas)
        kept = [xs[self.tissue_at(int(y), xs, share)] for y in ys]
        rows = np.repeat(ys, [len(k) for k in kept])
        return np.stack([rows, np.concatenate(kept)], axis=1).astype(np.int64)

    def near(self, boxes: Iterable[Box]) -> tuple[int, int]:
        """Count the places where a crop can lie, and those that one of ``boxes`` is near: a quarter of a side off at most.

        A place is a cell of tissue whose crop is half tissue.
        """
        ys, xs = (self._starts(axis) for axis in (0, 1))
        reached = np.zeros(self.mask.shape, bool)
        for box in boxes:
            reached[self._within(ys, box.y0), self._within(xs, box.x0)] = True
        places = near = 0
        for row, y in enumerate(ys):
            here = self.mask.rows(row, row + 1)[0] & self.tissue_at(int(y), xs)
            places, near = places + int(here.sum()), near + int((here & reached[row]).sum())
        return places, near

    def _starts(self, axis: int) -> NDArray[np.int64]:
        """Where the crops centred on each row (or column) of cells begin (px), as ``draw`` moves them onto the canvas."""
        cells, size = self.mask.shape[axis], self.canvas[axis]
        centres = (np.arange(cells) + 0.5) * size / cells
        return np.clip(np.rint(centres - self.side_px / 2), 0, size - self.side_px).astype(np.int64)

    def _within(self, starts: NDArray[np.int64], at: int) -> slice:
        reach = self.side_px / 4
        return slice(int(np.searchsorted(starts, at - reach)), int(np.searchsorted(starts, at + reach, side="right")))
