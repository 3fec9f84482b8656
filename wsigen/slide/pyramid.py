"""`PyramidSpec`: the levels, tiles and blocks of a slide, as arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from wsigen.base.errors import ConfigError
from wsigen.base.geometry import Box, ChunkGrid

Compression = Literal["jpeg", "deflate"]

MIN_SIDE = 512
"""Shortest side of a slide, in pixels."""

MAX_SIDE = 1_000_000
"""Longest side of a slide, in pixels."""

TOP_SIDE = 1024
"""The coarsest level's longer side is at most this, in pixels."""

BLOCK_LEVELS = 3
"""A block yields complete tiles of levels 0, 1 and 2."""


@dataclass(frozen=True)
class PyramidSpec:
    """A slide of ``width x height`` pixels as a pyramid of tiled levels, each half the one before.

    Attributes
    ----------
    width, height : int
        Level 0, pixels.
    mpp : float
        Micrometres per pixel of level 0.
    magnification : float
        Nominal magnification of the objective, e.g. 20.
    compression, quality : Compression, int
        ``"jpeg"`` (4:2:0, quality 1-100) or ``"deflate"`` (lossless; the quality is not used).
    tile : int
        Side of a tile in pixels.
    block : int
        Side of a block, the unit that is encoded at once, in pixels: a multiple of four tiles, so that each
        block holds whole tiles of three levels.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    width: int
    height: int
    mpp: float
    magnification: float
    compression: Compression = "jpeg"
    quality: int = 90
    tile: int = 512
    block: int = 2048

    def __post_init__(self) -> None:
        step = self.tile * 2 ** (BLOCK_LEVELS - 1)
        checks = [
            (min(self.width, self.height) >= MIN_SIDE,
             f"slide of {self.width} x {self.height} px: each side needs at least {MIN_SIDE} px"),
            (max(self.width, self.height) <= MAX_SIDE,
             f"slide of {self.width} x {self.height} px: each side has at most {MAX_SIDE:,} px"),
            (math.isfinite(self.mpp) and self.mpp > 0, f"mpp is {self.mpp}; it must be above 0"),
            (math.isfinite(self.magnification) and self.magnification > 0,
             f"magnification is {self.magnification}; it must be above 0"),
            (self.compression in ("jpeg", "deflate"),
             f"compression is {self.compression!r}; 'jpeg' and 'deflate' are what every viewer reads"),
            (1 <= self.quality <= 100, f"quality is {self.quality}; it must lie in 1..100"),
            (self.tile >= 16 and self.tile % 16 == 0, f"tile is {self.tile} px; TIFF needs a multiple of 16"),
            (self.block > 0 and step > 0 and self.block % step == 0,
             f"block is {self.block} px; it must be a multiple of four tiles, {step} px"),
        ]  # fmt: skip
        for good, message in checks:
            if not good:
                raise ConfigError(message)

    @property
    def levels(self) -> int:
        """Number of levels: halved until the longer side is at most ``TOP_SIDE``, and two at least."""
        side, count = max(self.width, self.height), 1
        while side > TOP_SIDE:
            side, count = -(-side // 2), count + 1
        return max(2, count)

    @property
    def grid(self) -> ChunkGrid:
        """The blocks of level 0."""
        return ChunkGrid(self.height, self.width, self.block)

    def level_size(self, level: int) -> tuple[int, int]:
        """``(height, width)`` of a level in its own pixels (rounded up)."""
        return (-(-self.height >> level), -(-self.width >> level))

    def level_mpp(self, level: int) -> float:
        """Micrometres per pixel of a level."""
        return self.mpp * 2**level

    def level_grid(self, level: int) -> ChunkGrid:
        """The tiles of a level, in its own pixels."""
        return ChunkGrid(*self.level_size(level), self.tile)

    def tiles_of_level(self, level: int) -> Iterator[tuple[int, int]]:
        """Every tile ``(row, column)`` of a level in row-major order, the order of the TIFF."""
        return iter(self.level_grid(level))

    def tiles_of_block(self, ij: tuple[int, int], level: int) -> list[tuple[int, int]]:
        """The tiles ``(row, column)`` of ``level`` (0, 1 or 2) in block ``ij``, in row-major order."""
        return self.level_grid(level).overlapping(self.block_box(ij, level))

    def block_box(self, ij: tuple[int, int], level: int = 0) -> Box:
        """The pixels of block ``ij`` at a level (0..3), cut at the slide's edge."""
        box = self.grid.box(ij)
        return Box(box.y0 >> level, box.x0 >> level, -(-box.y1 >> level), -(-box.x1 >> level))

    @property
    def block_levels(self) -> int:
        """How many levels the blocks' own tiles fill (the others come from the remainder images)."""
        return min(BLOCK_LEVELS, self.levels)
