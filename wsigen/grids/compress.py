"""A slide compressed to a grid: ``wsigen compress``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsigen.base.errors import GridError
from wsigen.base.geometry import Box
from wsigen.grids.mean_colour import DIMENSION, NAME, mean_colours
from wsigen.grids.wsz import CHUNK, GridFile, new_grid
from wsigen.slide.reading import open_image

CELL_UM = 5.6
"""8 px at 0.7 um/px: a latent px of the default model."""

OVERVIEW_PX = 512
"""Longest side of the picture for people."""


def compress(
    slide: str | Path,
    output: str | Path,
    *,
    cell_um: float = CELL_UM,
    mpp: float | None = None,
    size_um: tuple[float, float] | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> GridFile:
    """Write the grid of mean colours of a slide, in bands of bounded memory.

    Parameters
    ----------
    slide : str or Path
        Image or slide.
    output : str or Path
        The grid's file, ``*.wsz``.
    cell_um : float
        Side of a cell in um. The slide is cut into a whole number of cells: the size of a cell is right to within half a cell
        over the slide.
    mpp : float, optional
        um/px of an image that does not say its own.
    size_um : (float, float), optional
        Width and height that the image is resized to; by default its own, by its um/px.
    watch : callable, optional
        Called with (bands done, bands).

    Raises
    ------
    ImageError
        If the slide cannot be read.
    GridError
        If its um/px is not known, or a cell is larger than the slide.
    """
    image = open_image(slide)
    if size_um is None:
        mpp = image.mpp or mpp
        if mpp is None:
            raise GridError(f"{slide}: does not say its um/px; give it with --mpp")
        size_um = (image.width * mpp, image.height * image.aspect * mpp)
    width_um, height_um = size_um
    rows, cols = (max(1, round(extent / cell_um)) for extent in (height_um, width_um))
    if not cell_um <= min(size_um):
        raise GridError(f"setting 'cell_um': {cell_um} um; the slide has {width_um:g}x{height_um:g} um")
    about = GridFile(encoder=NAME, cell_um=cell_um, width_um=width_um, height_um=height_um, source=Path(slide).name)
    bands = range(0, rows, CHUNK)
    with new_grid(Path(output), about, (DIMENSION, rows, cols)) as writer:
        for number, first in enumerate(bands, start=1):
            box = Box(first, 0, min(first + CHUNK, rows), cols)
            colours = image.region(box, (rows, cols))
            writer.write(first, mean_colours(colours[None], 1)[0], np.ones(box.shape, dtype=bool))
            if watch is not None:
                watch(number, len(bands))
        shrink = max(1.0, max(rows, cols) / OVERVIEW_PX)
        size = (math.ceil(rows / shrink), math.ceil(cols / shrink))
        writer.overview(image.region(Box(0, 0, *size), size))
    return about
