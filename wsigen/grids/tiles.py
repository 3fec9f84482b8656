"""The grid of an encoder: each cell is what it makes of one tile, and glass is unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import GridError
from wsigen.base.geometry import Box
from wsigen.models.extractors.extractors import Extractor
from wsigen.slide.reading import ImageSource
from wsigen.slide.resample import mean_taps, weighted

ENCODER_MPP = 0.5
"""um/px that encoders of pathology look at if nobody says otherwise (20x)."""

LEAST_TISSUE = 0.05
"""Share of a cell that must be tissue for an encoder to look at it."""

BATCH = 16
"""Tiles a network sees at once."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Sizes of cells and tiles.

    Attributes
    ----------
    cell_um : float
        Side of a cell, um.
    cell_px : int
        The same in px of the tiles, which are cut around the centres of cells.
    tile_px : int
        Side of a tile, at least that of a cell.
    """

    cell_um: float
    cell_px: int
    tile_px: int

    @property
    def mpp(self) -> float:
        """um/px of the tiles."""
        return self.cell_um / self.cell_px


def cells_of(side_px: int, cell_um: float | None, mpp: float | None) -> Cells:
    """Sizes of the cells of an encoder that looks at tiles of ``side_px`` px.

    A cell is a tile. If both its side and the um/px are given, tiles may be larger than cells: then they overlap.

    Raises
    ------
    GridError
        If tiles are smaller than cells: some of the tissue would not be looked at.
    """
    if mpp is None and cell_um is not None:
        return Cells(cell_um, side_px, side_px)
    mpp = mpp or ENCODER_MPP
    cell_um = cell_um or side_px * mpp
    cell_px = max(1, round(cell_um / mpp))
    if cell_px > side_px:
        raise GridError(
            f"setting 'cell_um': {cell_um:g} um, of which the encoder sees {side_px * mpp:g} um, {side_px} px of {mpp:g} um; "
            "leave the um/px out, and tiles are as large as cells"
        )
    return Cells(cell_um, cell_px, side_px)


def whole_cells(extent: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of cells that cover a slide of so many; a thousandth of one more is nobody's."""
    rows, cols = (max(1, math.ceil(cells - 1e-3)) for cells in extent)
    return rows, cols


@dataclass(frozen=True, eq=False)
class TileEncoder:
    """Encodes rows of cells.

    Memory bound: a batch of tiles, and the rows asked for.

    Attributes
    ----------
    image : ImageSource
        The slide.
    tissue : ndarray
        bool, the tissue of all of it on a small view.
    extent : (float, float)
        How many cells the slide is high and wide.
    """

    image: ImageSource
    tissue: NDArray[np.bool_]
    extractor: Extractor
    cells: Cells
    extent: tuple[float, float]

    def band(self, first: int, last: int) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Encode rows ``first`` to ``last``: float16 ``(D, last - first, cols)`` and bool ``(last - first, cols)``.

        A cell that the slide ends in is known by its part on the slide; beyond it, its tile repeats the last pixels.

        Raises
        ------
        ImageError
            If the slide cannot be read everywhere.
        GridError
            If the encoder gives numbers that are not finite or beyond float16.
        """
        known = self._looked_at(first, last)
        values = np.zeros((self.extractor.dimension, *known.shape), dtype=np.float16)
        places = np.argwhere(known)
        for begin in range(0, len(places), BATCH):
            batch = places[begin : begin + BATCH]
            tiles = np.stack([self._tile(first + int(y), int(x)) for y, x in batch])
            with np.errstate(over="ignore"):
                found = self.extractor.features(tiles).astype(np.float16)
            if not np.isfinite(found).all():
                raise GridError(
                    f"encoder {self.extractor.name}: gives numbers that are not finite, or beyond 65,504, in row "
                    f"{first + int(batch[0][0])} of the grid; its weights are damaged or overflow"
                )
            values[:, batch[:, 0], batch[:, 1]] = found.T
        return values, known

    def _looked_at(self, first: int, last: int) -> NDArray[np.bool_]:
        (height, width), (high, wide) = self.tissue.shape, self.extent
        rows, cols = whole_cells(self.extent)
        beyond = ((0, math.ceil(rows * height / high) - height + 1), (0, math.ceil(cols * width / wide) - width + 1))
        both = np.stack([np.pad(each, beyond) for each in (self.tissue, np.ones_like(self.tissue))], axis=-1)
        down = mean_taps(first, last, height / high, both.shape[0])
        across = mean_taps(0, cols, width / wide, both.shape[1])
        (y0, y1), (x0, x1) = down.span, across.span
        tissue, slide = np.moveaxis(weighted(both[y0:y1, x0:x1].astype(np.float32), down, across), -1, 0)
        return np.asarray(tissue >= LEAST_TISSUE * slide)

    def _tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """The tile around a cell; what lies beyond the slide repeats its last pixels."""
        cell, tile = self.cells.cell_px, self.cells.tile_px
        high, wide = (cells * cell for cells in self.extent)
        y, x = (place * cell - (tile - cell) // 2 for place in (row, col))
        inside = Box(y, x, y + tile, x + tile).intersect(Box(0, 0, math.ceil(high), math.ceil(wide)))
        beyond = ((inside.y0 - y, y + tile - inside.y1), (inside.x0 - x, x + tile - inside.x1), (0, 0))
        return np.pad(self.image.region(inside, (high, wide)), beyond, mode="edge")
