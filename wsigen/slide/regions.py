"""A class map to polygons, in bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import LayoutError
from wsigen.base.geometry import Box

ClassReader = Callable[[Box], NDArray[np.uint8]]
"""Classes of a box of cells: uint8 ``[h, w]``, positions in a `ClassTable` or ``UNKNOWN``."""

Ring = list[list[int]]
"""Closed ring of ``[x, y]`` corners."""

BAND = 512
"""Rows of cells that are read at a time."""

SKIPPED = UNKNOWN


def regions(rows: ClassReader, shape: tuple[int, int], table: ClassTable, scratch: Path) -> Iterator[tuple[int, list[Ring]]]:
    """Yield ``(class, rings)`` of every connected region, the outer ring first, then its holes, in cells.

    Regions are connected over edges, not corners (with corners, five in a hundred polygons touch themselves
    and are invalid), do not overlap, and cover each cell of a class exactly. Background classes and unknown
    cells are left out.

    Parameters
    ----------
    shape:
        ``(height, width)`` of the class map in cells.
    scratch:
        A file to be made for the time being; it is removed in the end, whatever happens.

    Raises
    ------
    LayoutError
        If the class map holds a value that is not in ``table``.

    Notes
    -----
    **Memory bound.** The class map passes through a tiled raster on disk, ``BAND`` rows at a time, and GDAL's
    polygoniser walks that raster by scan lines; memory grows with the number of polygons only.
    """
    import rasterio
    from rasterio.features import shapes

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            _write_raster(scratch, rows, shape, table)
            with rasterio.open(scratch, driver="GTiff") as raster:
                for geometry, value in shapes(rasterio.band(raster, 1), connectivity=4):
                    if int(value) != SKIPPED:
                        rings = geometry["coordinates"]
                        yield int(value), [[[int(x), int(y)] for x, y in ring] for ring in rings]
    finally:
        scratch.unlink(missing_ok=True)


def _write_raster(path: Path, rows: ClassReader, shape: tuple[int, int], table: ClassTable) -> None:
    import rasterio
    from rasterio.windows import Window

    height, width = shape
    keep = _lookup(table)
    size = {"height": height, "width": width, "count": 1, "dtype": "uint8", "bigtiff": "if_safer"}
    tiling = {"tiled": True, "blockxsize": BAND, "blockysize": BAND, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", driver="GTiff", **size, **tiling) as raster:
        for y in range(0, height, BAND):
            box = Box(y, 0, min(y + BAND, height), width)
            cells = np.asarray(rows(box))
            _check(cells, box, table)
            raster.write(keep[cells], 1, window=Window(0, y, width, box.height))


def _check(cells: NDArray[np.uint8], box: Box, table: ClassTable) -> None:
    name = f"class map, rows {box.y0} to {box.y1}"
    if cells.shape != box.shape:
        raise LayoutError(f"{name}: got {cells.shape} cells, expected {box.shape}")
    wrong = np.unique(cells[(cells >= len(table)) & (cells != UNKNOWN)])
    if wrong.size:
        raise LayoutError(f"{name}: got class {wrong[0]}; known are 0 to {len(table) - 1} and {UNKNOWN} (unknown)")


def _lookup(table: ClassTable) -> NDArray[np.uint8]:
    """Class value to itself, or to ``SKIPPED`` if it is not drawn."""
    keep = np.full(256, SKIPPED, np.uint8)
    for index, tissue in enumerate(table):
        if not tissue.background:
            keep[index] = index
    return keep
