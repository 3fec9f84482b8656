"""The tiles of a slide: which there are, how much tissue and which classes they show, their pixels and their masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import ConfigError
from wsigen.base.geometry import Box
from wsigen.cohort.folder import CohortFolder
from wsigen.dataset.mask_labels import MaskLabels
from wsigen.layout.layout import Layout
from wsigen.slide.reading import ImageSource, open_image
from wsigen.slide.resolution import SAME

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of a slide.

    Attributes
    ----------
    name : str
        The slide's id and the tile's place.
    x, y : int
        Its upper left corner, px of the slide's full resolution.
    box : Box
        Where it lies, px of the slide at the tiles' um/px.
    tissue : float
        Share of it that is not glass by the class map.
    shares : dict of str to float
        Share of it that each class covers.
    """

    name: str
    x: int
    y: int
    box: Box
    tissue: float
    shares: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class CutSlide:
    """A slide of a cohort that is cut into tiles.

    Attributes
    ----------
    row : dict of str to str
        Its line of ``cohort.csv``.
    table : ClassTable
        Its classes.
    image, layout, canvas
        Its pixels, its class map, and its ``(height, width)`` at the tiles' um/px.
    mpp : float
        um/px of the tiles.
    cell_px : int
        Side of a cell of the class map, px of the full resolution.
    """

    row: dict[str, str]
    table: ClassTable
    image: ImageSource
    layout: Layout
    canvas: tuple[int, int]
    mpp: float
    cell_px: int

    def tiles(self, side: int, min_tissue: float) -> Iterator[Tile]:
        """Whole tiles in rows, without those of less tissue; what is left at the right and lower edge is no tile.

        Parameters
        ----------
        side : int
            Of a tile, px.
        """
        cell = next(n for n in range(min(self.cell_px, side), 0, -1) if side % n == 0)
        cells, columns = side // cell, self.canvas[1] // side
        glass = [k for k, tissue in enumerate(self.table) if tissue.background]
        scale = self.image.height / self.canvas[0], self.image.width / self.canvas[1]
        for row in range(self.canvas[0] // side):
            strip = self.layout.class_map(Box(row * cells, 0, (row + 1) * cells, columns * cells), cell)
            for column in range(columns):
                counts = np.bincount(strip[:, column * cells : (column + 1) * cells].ravel(), minlength=UNKNOWN + 1) / cells**2
                tissue = 1.0 - float(counts[glass].sum())
                if tissue < min_tissue:
                    continue
                box = Box(row * side, column * side, (row + 1) * side, (column + 1) * side)
                y, x = round(box.y0 * scale[0]), round(box.x0 * scale[1])
                shares = {kind.name: float(share) for kind, share in zip(self.table, counts, strict=False)}
                yield Tile(f"{self.row['id']}_x{x}_y{y}", x, y, box, tissue, shares)

    def pixels(self, tile: Tile) -> U8:
        """Uint8 ``(side, side, 3)`` RGB."""
        return self.image.region(tile.box, self.canvas)

    def mask(self, tile: Tile) -> U8:
        """Uint8 ``(side, side)``: positions in the class table, or `classes.UNKNOWN`."""
        return self.layout.class_map(tile.box, 1)


def open_cut(folder: CohortFolder, row: dict[str, str], mpp: float | None) -> CutSlide:
    """Open a slide of a cohort with its class map.

    Parameters
    ----------
    mpp : float or None
        um/px of the tiles; None: that of the slide.

    Raises
    ------
    WsigenError
        If a file is missing or damaged, or the tiles would be enlarged.
    """
    manifest = folder.manifest(row["id"])
    own, cell_px, table = manifest.slide.mpp, manifest.passes[-1].cell_px, ClassTable(manifest.classes)
    if mpp is not None and mpp < own / (1 + SAME):
        raise ConfigError(
            f"--mpp {mpp:g}: the slides have {own:g} um/px, and enlarged tiles show no more; give {own:g} or more"
        )
    image = open_image(folder.root / row["slide"]).stated(own)
    values = (*((k, kind.name) for k, kind in enumerate(table)), (UNKNOWN, ""))
    labels = MaskLabels(Path(folder.root / row["labels"]), table, values, mpp=own * cell_px)
    canvas = (image.height, image.width) if mpp is None else image.canvas(mpp)
    return CutSlide(row, table, image, labels.layout(image, canvas), canvas, own if mpp is None else mpp, cell_px)
