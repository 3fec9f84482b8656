"""Boxes and chunk grids: integer rectangles on a canvas.

Every coordinate is an integer in the pixels of one canvas, (y, x) order, half-open. Whether the canvas is made of latent
or image pixels is said where a box is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

TILE = 128
"""Largest side in latent px of the tiles that a large chunk consists of, each with its own checksum."""

SMALLEST_TILE = 32
"""Smaller ones cost more than they save."""


@dataclass(frozen=True, order=True, slots=True)
class Box:
    """The half-open rectangle ``[y0, y1) x [x0, x1)``."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return (self.height, self.width)

    @property
    def empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.y1 <= self.y0 or self.x1 <= self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array of the whole canvas."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1))

    def dilate(self, margin: int) -> Box:
        """Grow by ``margin`` on all four sides (may leave the canvas)."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def snap(self, step: int) -> Box:
        """Move up and left until the corner is a multiple of ``step``."""
        return self.shift(-(self.y0 % step), -(self.x0 % step))

    def shift(self, dy: int, dx: int) -> Box:
        """Move by ``(dy, dx)``."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def relative_to(self, outer: Box) -> Box:
        """The same box in coordinates whose origin is the corner of ``outer``."""
        return self.shift(-outer.y0, -outer.x0)

    def scale(self, factor: int) -> Box:
        """Multiply every coordinate, e.g. latent to image pixels."""
        return Box(self.y0 * factor, self.x0 * factor, self.y1 * factor, self.x1 * factor)

    def cover(self, factor: int) -> Box:
        """Divide every coordinate, outwards where it does not divide, e.g. image to latent pixels."""
        return Box(self.y0 // factor, self.x0 // factor, -(-self.y1 // factor), -(-self.x1 // factor))

    def intersect(self, other: Box) -> Box:
        """The common part (possibly empty)."""
        return Box(max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1))

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1))

    def overlaps(self, other: Box) -> bool:
        """Whether both boxes share a pixel."""
        return not self.intersect(other).empty

    def contains(self, y: int, x: int) -> bool:
        """Whether pixel ``(y, x)`` lies inside."""
        return self.y0 <= y < self.y1 and self.x0 <= x < self.x1


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """A canvas of ``height x width`` pixels cut into square chunks of side ``chunk`` (the last ones may be smaller)."""

    height: int
    width: int
    chunk: int

    @property
    def canvas(self) -> Box:
        """The whole canvas."""
        return Box(0, 0, self.height, self.width)

    @property
    def rows(self) -> int:
        """Chunks in a column."""
        return math.ceil(self.height / self.chunk)

    @property
    def columns(self) -> int:
        """Chunks in a row."""
        return math.ceil(self.width / self.chunk)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every chunk ``(i, j)`` in row-major order."""
        for i in range(self.rows):
            for j in range(self.columns):
                yield (i, j)

    def box(self, ij: tuple[int, int]) -> Box:
        """The pixels of chunk ``(i, j)``, cut at the canvas edge."""
        i, j = ij
        c = self.chunk
        return Box(i * c, j * c, (i + 1) * c, (j + 1) * c).intersect(self.canvas)

    def neighbourhood(self, ij: tuple[int, int]) -> list[tuple[int, int]]:
        """The chunk itself and its existing neighbours (at most 3x3), in row-major order."""
        i, j = ij
        return [
            (a, b) for a in range(max(0, i - 1), min(self.rows, i + 2)) for b in range(max(0, j - 1), min(self.columns, j + 2))
        ]

    def overlapping(self, box: Box) -> list[tuple[int, int]]:
        """Every chunk that shares a pixel with ``box``, in row-major order."""
        b = box.intersect(self.canvas)
        if b.empty:
            return []
        c = self.chunk
        return [(i, j) for i in range(b.y0 // c, -(-b.y1 // c)) for j in range(b.x0 // c, -(-b.x1 // c))]


def lattice_windows(box: Box, side: int) -> Iterator[Box]:
    """Windows of the global lattice of ``side`` that cover ``box`` without overlap."""
    for y in range(box.y0 // side * side, box.y1, side):
        for x in range(box.x0 // side * side, box.x1, side):
            yield Box(y, x, y + side, x + side).intersect(box)


def tile_side(side: int) -> int:
    """Side of a chunk's tiles: the largest divisor of ``side`` up to `TILE`, or ``side`` itself if it has none of use.

    A chunk is one key whatever its tiles, but who needs its edge (the neighbours' crops, the neighbours' sums) reads the tiles
    there and no others.
    """
    fitting = [side // n for n in range(1, side // SMALLEST_TILE + 1) if side % n == 0 and side // n <= TILE]
    return max(fitting, default=side)
