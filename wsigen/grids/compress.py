"""A slide, or a feature file, compressed to a grid: ``wsigen compress``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import GridError
from wsigen.base.geometry import Box
from wsigen.base.yaml_file import validated
from wsigen.grids.feature_file import FEATURES, Stated, open_features
from wsigen.grids.grid import Grid, GridFile
from wsigen.grids.mean_colour import DIMENSION, NAME, mean_colours
from wsigen.grids.picture import grid_picture
from wsigen.grids.tiles import TileEncoder, cells_of, whole_cells
from wsigen.grids.wsz import CHUNK, new_grid
from wsigen.models.extractors.extractors import Extractor, open_extractor
from wsigen.slide.reading import ImageSource, open_image
from wsigen.slide.tissue import find_tissue

CELL_UM = 5.6
"""Of mean colours: 8 px at 0.7 um/px, a latent px of the default model."""

OVERVIEW_PX = 512
"""Longest side of the picture for people."""

Band = Callable[[int, int], tuple[NDArray[Any], NDArray[np.bool_]]]
"""First row of cells and the one after the last -> their values ``(D, rows, cols)``, and where they are known."""

Watch = Callable[[int, int], None]


def compress(
    slide: str | Path | ImageSource,
    output: str | Path,
    *,
    encoder: str | Extractor | None = None,
    cell_um: float | None = None,
    encoder_mpp: float | None = None,
    mpp: float | None = None,
    size_um: tuple[float, float] | None = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> GridFile:
    """Write the grid of a slide, in bands of bounded memory, or that of a feature file of TRIDENT or CLAM (``*.h5``).

    Parameters
    ----------
    slide : str, Path or ImageSource
        Image, slide, or feature file.
    output : str or Path
        The grid's file, ``*.wsz``.
    encoder : str or Extractor, optional
        What a cell is: its mean colour (``mean-colour``, the default), or what an extractor of ``wsigen evaluate`` makes of it
        (``imagenet``, ``timm:NAME`` ...). Of a feature file the name of its encoder, if it does not say it.
    cell_um : float, optional
        Side of a cell in um; by default 5.6 of mean colours, and a tile of an encoder. What the last cells of a row or column
        lack of the slide repeats its last pixels.
    encoder_mpp : float, optional
        um/px at which the encoder looks at the slide; by default 0.5, or whatever makes a tile of a cell. Not of mean colours.
    mpp : float, optional
        um/px of an image that does not say its own; of the coordinates of a feature file.
    size_um : (float, float), optional
        Width and height that the image is resized to; by default its own, by its um/px.
    device : str
        Where the encoder runs.
    watch : callable, optional
        Called with (bands done, bands).

    Raises
    ------
    ImageError
        If the slide cannot be read.
    EvaluationError
        If there is no such encoder, or its weights cannot be loaded.
    GridError
        If the um/px is not known, a cell is larger than the slide, or a feature file cannot be used.
    """
    if not isinstance(slide, ImageSource) and Path(slide).suffix in FEATURES:
        if encoder_mpp or size_um:
            raise GridError(f"{slide}: has its features already; leave {'--encoder-mpp' if encoder_mpp else 'size_um'} out")
        name = encoder if encoder is None or isinstance(encoder, str) else encoder.name
        cells = _of_features(Path(slide), Stated(name, cell_um, mpp))
    else:
        image = slide if isinstance(slide, ImageSource) else open_image(slide)
        cells = _of_image(image, encoder, cell_um, encoder_mpp, size_um or _size_um(image, mpp), device)
    _write(Path(output), cells, watch)
    return cells.about


@dataclass(frozen=True, eq=False, slots=True)
class _Cells:
    """The cells of a grid that are still to be made: their number ``(D, rows, cols)``, how, and a picture of the slide."""

    about: GridFile
    shape: tuple[int, int, int]
    band: Band
    overview: NDArray[np.uint8]


def _of_features(file: Path, stated: Stated) -> _Cells:
    about, grid = open_features(file, stated)
    _, rows, cols = grid.values.shape
    return _Cells(about, (len(grid.values), rows, cols), partial(_rows_of, grid), grid_picture(grid))


def _of_image(
    image: ImageSource,
    encoder: str | Extractor | None,
    cell_um: float | None,
    encoder_mpp: float | None,
    size_um: tuple[float, float],
    device: str,
) -> _Cells:
    width_um, height_um = size_um
    source = Path(image.path).name
    of_slide = {"width_um": width_um, "height_um": height_um, "source": source}
    if encoder is None or encoder == NAME:
        if encoder_mpp is not None:
            raise GridError(f"{image.path}: mean colours are looked at as large as cells are; leave --encoder-mpp out")
        about = _checked({"encoder": NAME, "cell_um": cell_um or CELL_UM, **of_slide}, image.path)
        extent = _extent(about)
        overview = _overview(image, height_um / width_um)
        return _Cells(about, (DIMENSION, *whole_cells(extent)), partial(_mean_colours, image, extent), overview)
    network = open_extractor(encoder, device) if isinstance(encoder, str) else encoder
    cells = cells_of(network.side_px, cell_um, encoder_mpp)
    made = {"encoder": network.name, "encoder_sha256": network.sha256, "cell_um": cells.cell_um, "encoder_mpp": cells.mpp}
    about = _checked({**made, **of_slide}, image.path)
    extent = _extent(about)
    overview = _overview(image, height_um / width_um)
    tiles = TileEncoder(image, find_tissue(image, width_um / image.width), network, cells, extent)
    return _Cells(about, (network.dimension, *whole_cells(extent)), tiles.band, overview)


def _checked(content: dict[str, Any], path: str | Path) -> GridFile:
    return validated(GridFile, content, f"{path}: no grid can be made so", GridError)


def _write(output: Path, cells: _Cells, watch: Watch | None) -> None:
    _, rows, _ = cells.shape
    bands = range(0, rows, CHUNK)
    with new_grid(output, cells.about, cells.shape) as writer:
        for number, first in enumerate(bands, start=1):
            writer.write(first, *cells.band(first, min(first + CHUNK, rows)))
            if watch is not None:
                watch(number, len(bands))
        writer.overview(cells.overview)


def _mean_colours(
    image: ImageSource, extent: tuple[float, float], first: int, last: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    box = Box(first, 0, last, whole_cells(extent)[1])
    colours = image.region(box, extent)
    return mean_colours(colours[None], 1)[0], np.ones(box.shape, dtype=bool)


def _rows_of(grid: Grid, first: int, last: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return grid.values[:, first:last], grid.known[first:last]


def _extent(about: GridFile) -> tuple[float, float]:
    """How many cells a slide is high and wide, rarely a whole number (GridError if it is smaller than one)."""
    if not about.cell_um <= min(about.width_um, about.height_um):
        size = f"{about.width_um:g}x{about.height_um:g} um"
        raise GridError(f"setting 'cell_um': {about.cell_um:g} um; the slide has {size}")
    return about.height_um / about.cell_um, about.width_um / about.cell_um


def _size_um(image: ImageSource, mpp: float | None) -> tuple[float, float]:
    mpp = image.mpp or mpp
    if mpp is None:
        raise GridError(f"{image.path}: does not say its um/px; give it with --mpp")
    return image.width * mpp, image.height * image.aspect * mpp


def _overview(image: ImageSource, aspect: float) -> NDArray[np.uint8]:
    """A small picture of the slide, ``aspect`` times as high as wide."""
    width = max(1, round(min(OVERVIEW_PX, OVERVIEW_PX / aspect, image.width)))
    size = (max(1, round(width * aspect)), width)
    return image.region(Box(0, 0, *size), size)
