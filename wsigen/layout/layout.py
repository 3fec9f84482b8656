"""`Layout`: which class is where on the slide to be generated; `UniformLayout`: one class everywhere."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from wsigen.base.geometry import Box

MAX_SIDE_PX = 1_000_000
"""The longest side of a slide that a layout may ask for, in pixels of the full resolution."""


class Layout:
    """The class of every place of a slide, read box by box.

    Attributes
    ----------
    height, width : int
        Size of the slide in pixels of the full resolution.
    strip_cells : int
        Cells computed at a time: bounds the memory of a read, whatever box is asked for.
    """

    height: int
    width: int
    strip_cells = 2**20

    @abstractmethod
    def classes(self, box: Box, cell_px: int) -> np.ndarray:
        """Return the class at the centre of every cell of a box whose centres lie on the slide, uint8 ``[h, w]``."""

    def canvas(self, cell_px: int) -> Box:
        """The cells whose centres lie on the slide."""
        return Box(0, 0, _centres_inside(self.height, cell_px), _centres_inside(self.width, cell_px))

    def class_map(self, box: Box, cell_px: int) -> np.ndarray:
        """Return the class index at the centre of every cell of ``box``.

        A pure function: the value of a cell does not depend on the box it is read with.

        Parameters
        ----------
        box : Box
            Counts cells of ``cell_px x cell_px`` slide pixels (8 for f8 latents of the full resolution).
        cell_px : int
            Side of a cell (slide px).

        Returns
        -------
        uint8 ``[box.height, box.width]``. Cells whose centre lies outside the slide have the value of the
        nearest cell inside.
        """
        rows = np.clip(np.arange(box.y0, box.y1), 0, _centres_inside(self.height, cell_px) - 1)
        columns = np.clip(np.arange(box.x0, box.x1), 0, _centres_inside(self.width, cell_px) - 1)
        if box.empty:
            return np.zeros((len(rows), len(columns)), np.uint8)
        inner = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        out = np.empty(inner.shape, np.uint8)
        step = max(1, self.strip_cells // inner.width)
        for y in range(inner.y0, inner.y1, step):
            strip = Box(y, inner.x0, y + step, inner.x1).intersect(inner)
            out[strip.relative_to(inner).slices] = self.classes(strip, cell_px)
        return out[np.ix_(rows - inner.y0, columns - inner.x0)]


@dataclass(frozen=True, slots=True)
class UniformLayout(Layout):
    """A slide of ``height x width`` pixels that is class ``class_index`` everywhere."""

    height: int
    width: int
    class_index: int

    def classes(self, box: Box, cell_px: int) -> np.ndarray:
        """All ``class_index``."""
        return np.full(box.shape, self.class_index, np.uint8)


def _centres_inside(side_px: int, cell_px: int) -> int:
    """Count the cells along a side whose centre lies on the slide (at least one)."""
    return max(1, math.ceil(side_px / cell_px - 0.5))
