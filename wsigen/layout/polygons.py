"""`PolygonLayout`: polygons, one painted over the other -> the class of every cell of the slide.

Polygons are filled by the class at every cell's centre. Each crossing of an edge with a row of centres is computed in the
coordinates of the slide, never in those of the box. So a cell gets the same bits whatever box it is read with, which a
rasteriser that first moves the polygon to the box does not promise. Edges run downwards and intervals are half-open: polygons
that share an edge leave no gap and never overlap.

Files may hold 100,000 of them (detections of cells). They lie in a few long arrays, and all polygons near a box are filled
together, so that a box costs what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout

AT_ONCE = 2**20
"""Points and cells of the polygons that are filled together: bounds the memory of a read."""

Rings = Sequence[NDArray[np.float64]]
"""A polygon: outline, then holes, each float64 ``[n, 2]`` of (x, y), the last point equal to the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Polygons in the order in which they are painted.

    Attributes
    ----------
    classes : uint8 [n]
        Class index of each.
    bounds : float64 [n, 4]
        (x0, y0, x1, y1) of each.
    starts : int64 [n + 1]
        Where the points of each begin.
    points : float64 [p, 2]
        (x, y) of the corners of all rings.
    closing : bool [p]
        Whether a point is the last one of its ring, from which no edge begins.
    """

    classes: NDArray[np.uint8]
    bounds: NDArray[np.float64]
    starts: NDArray[np.int64]
    points: NDArray[np.float64]
    closing: NDArray[np.bool_]

    @staticmethod
    def of(polygons: Sequence[Rings], classes: Sequence[int]) -> Polygons:
        """Put polygons one after the other."""
        rings = [ring for polygon in polygons for ring in polygon]
        lengths = np.array([len(ring) for ring in rings], np.int64)
        ends = np.cumsum(lengths)
        counts = np.array([sum(len(ring) for ring in polygon) for polygon in polygons], np.int64)
        closing = np.zeros(int(lengths.sum()), bool)
        closing[ends - 1] = True
        points = np.concatenate(rings) if rings else np.zeros((0, 2))
        return Polygons(np.array(classes, np.uint8), bounds_of(polygons), np.append(0, np.cumsum(counts)), points, closing)

    def moved(self, x: float, y: float) -> Polygons:
        """The same elsewhere, units of the file."""
        by = np.array([x, y, x, y], np.float64)
        return replace(self, bounds=self.bounds + by, points=self.points + by[:2]) if x or y else self

    def __len__(self) -> int:
        return len(self.classes)


def bounds_of(polygons: Sequence[Rings]) -> NDArray[np.float64]:
    """Return (x0, y0, x1, y1) of the outlines of some polygons, float64 ``[n, 4]``."""
    if not polygons:
        return np.zeros((0, 4))
    outlines = np.concatenate([rings[0] for rings in polygons])
    starts = np.cumsum([0, *(len(rings[0]) for rings in polygons[:-1])])
    return np.hstack([np.minimum.reduceat(outlines, starts), np.maximum.reduceat(outlines, starts)])


@dataclass(frozen=True, slots=True, eq=False)
class PolygonLayout(Layout):
    """Polygons on a background.

    Attributes
    ----------
    height, width : int
        Size of the slide (px).
    background : int
        Class index outside every polygon.
    polygons : Polygons
        In units of their file.
    scale : tuple of float
        Slide px per unit, along y and along x.
    notes : tuple of str
        What a person should know of the file they were read from, a line each.
    guessed : bool
        Whether the size was guessed from the polygons.
    unused_names : tuple of str
        Renamed classifications that nothing has.
    """

    height: int
    width: int
    background: int
    polygons: Polygons
    scale: tuple[float, float] = (1.0, 1.0)
    notes: tuple[str, ...] = ()
    guessed: bool = False
    unused_names: tuple[str, ...] = ()

    def part(self, box: Box) -> PolygonLayout:
        """The layout of a part of the slide, a box of its px; it need not begin at a multiple of any cell."""
        sy, sx = self.scale
        return replace(self, height=box.height, width=box.width, polygons=self.polygons.moved(-box.x0 / sx, -box.y0 / sy))

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Paint the polygons near a box, a group after the other (`Layout.classes`)."""
        out = np.full(box.shape, self.background, np.uint8)
        for group in self._groups(box, cell_px):
            self._paint(out, group, box, cell_px)
        return out

    def missed(self, cell_px: int) -> NDArray[np.int64]:
        """Return which polygons on the slide, narrower than two cells, hold no centre of a cell: no class map shows them."""
        sy, sx = self.scale
        x0, y0, x1, y1 = (self.polygons.bounds * np.array([sx, sy, sx, sy])).T
        on_slide = (x1 > 0) & (y1 > 0) & (x0 < self.width) & (y0 < self.height)
        narrow = np.flatnonzero(on_slide & (np.minimum(x1 - x0, y1 - y0) < 2 * cell_px))
        work = np.cumsum((y1 - y0)[narrow] / cell_px + np.diff(self.polygons.starts)[narrow])
        groups = np.split(narrow, np.flatnonzero(np.diff(work // AT_ONCE)) + 1)
        seen = [group[np.unique(self._intervals(group, self.canvas(cell_px), cell_px)[0])] for group in groups]
        return np.setdiff1d(narrow, np.concatenate(seen))

    def _groups(self, box: Box, cell_px: int) -> Iterator[NDArray[np.int64]]:
        """The polygons whose bounds meet a box, in order, so many at a time that they can be filled together."""
        sy, sx = self.scale
        x0, y0, x1, y1 = (self.polygons.bounds * (np.array([sx, sy, sx, sy]) / cell_px)).T
        near = np.flatnonzero((x0 < box.x1) & (x1 > box.x0) & (y0 < box.y1) & (y1 > box.y0))
        if not len(near):
            return
        width = np.minimum(x1[near], box.x1) - np.maximum(x0[near], box.x0) + 1
        height = np.minimum(y1[near], box.y1) - np.maximum(y0[near], box.y0) + 1
        work = np.cumsum(width * height + np.diff(self.polygons.starts)[near])
        while len(near):
            count = max(1, int(np.searchsorted(work, AT_ONCE, side="right")))
            yield near[:count]
            near, work = near[count:], work[count:] - work[count - 1]

    def _paint(self, out: NDArray[np.uint8], which: NDArray[np.int64], box: Box, cell_px: int) -> None:
        """Fill polygons; where they overlap the last one wins."""
        owner, row, column, length = self._intervals(which, box, cell_px)
        cells = np.repeat(row * box.width + column, length) + _counting(length)
        flat, classes = out.reshape(-1), self.polygons.classes[which]
        if len(which) == 1:
            flat[cells] = classes[0]
            return
        last = np.zeros(flat.shape, np.int32)
        np.maximum.at(last, cells, np.repeat(owner + 1, length).astype(np.int32))
        painted = last > 0
        flat[painted] = classes[last[painted] - 1]

    def _intervals(
        self, which: NDArray[np.int64], box: Box, cell_px: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The runs of cells in some polygons: position in ``which``, row and first column in the box, and how many cells."""
        owner, upper, lower = self._edges(which)
        owner, row, column = _crossings(owner, upper, lower, box, cell_px)
        # Sorted by polygon, row and column, the crossings are the two ends of one interval after the other (even-odd rule).
        ends = (owner * box.height + row) * (box.width + 1) + column
        ends.sort()
        start, length = ends[::2], ends[1::2] - ends[::2]
        start, length = start[length > 0], length[length > 0]
        line, column = np.divmod(start, box.width + 1)
        owner, row = np.divmod(line, box.height)
        return owner, row, column, length

    def _edges(self, which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The edges of some polygons that are not horizontal: position in ``which``, upper and lower end (x, y) in slide px."""
        p = self.polygons
        counts = p.starts[which + 1] - p.starts[which]
        at = np.repeat(p.starts[which], counts) + _counting(counts)
        owner = np.repeat(np.arange(len(which)), counts)
        begins = ~p.closing[at]
        at, owner = at[begins], owner[begins]
        factor = np.array([self.scale[1], self.scale[0]])
        first, second = p.points[at] * factor, p.points[at + 1] * factor
        sloped = first[:, 1] != second[:, 1]
        owner, first, second = owner[sloped], first[sloped], second[sloped]
        upwards = (first[:, 1] > second[:, 1])[:, None]
        return owner, np.where(upwards, second, first), np.where(upwards, first, second)


def _crossings(
    owner: NDArray[np.int64], upper: NDArray[np.float64], lower: NDArray[np.float64], box: Box, cell_px: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where edges cross the rows of centres of a box.

    Returns
    -------
    owner, row, column : int64 arrays
        Polygon of each crossing, row in the box, and the first column whose centre is not left of it, 0 to the box's width.
    """
    first = np.clip(np.ceil(upper[:, 1] / cell_px - 0.5), box.y0, box.y1).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] / cell_px - 0.5), box.y0, box.y1).astype(np.int64)
    crossing = last > first
    owner, upper, lower, first = owner[crossing], upper[crossing], lower[crossing], first[crossing]
    count = last[crossing] - first

    which = np.repeat(np.arange(len(owner)), count)
    row = first[which] + _counting(count)
    x0, y0 = upper[which].T
    x1, y1 = lower[which].T
    x = x0 + ((row + 0.5) * cell_px - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(x / cell_px - 0.5), box.x0, box.x1).astype(np.int64)
    return owner[which], row - box.y0, column - box.x0


def _counting(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count from 0 in every one of several runs: (2, 3) -> 0 1 0 1 2."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
