"""A grid for people: what it says of itself in lines, and a picture of its cells."""

from __future__ import annotations

from itertools import product
from math import isqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import printable
from wsigen.base.geometry import Box
from wsigen.grids.grid import Grid
from wsigen.grids.mean_colour import NAME
from wsigen.grids.opening import open_grid, read_about

MOST_PX = 1024
"""Longest side of a picture."""

MOST_NUMBERS = 2**26
"""Numbers of cells, or of means of cells, that principal components are taken of: half a gigabyte in float64."""

AT_ONCE = 2**23
"""Numbers of cells that means are taken of at once."""

BAND = 256
"""Rows of cells whose "known" is read at once."""

UNKNOWN_RGB = (255, 255, 255)


def describe_grid(file: Path) -> list[str]:
    """Lines for people: encoder, cells, size (GridError if it is no grid)."""
    about, grid = read_about(file), open_grid(file)
    dimension, rows, cols = grid.values.shape
    known = sum(int(grid.known[first : first + BAND].sum()) for first in range(0, rows, BAND)) / (rows * cols)
    lines = [
        f"grid of {about.encoder}: {cols}x{rows} cells of {about.cell_um:g} um, {dimension} numbers each",
        f"known:        {100 * known:.1f} % of the cells",
        f"slide:        {about.width_um:.0f}x{about.height_um:.0f} um{f', {about.source}' if about.source else ''}",
        f"file:         {file.stat().st_size / 2**20:.1f} MiB",
    ]
    lines += [f"looked at:    {about.encoder_mpp:.3g} um/px"] if about.encoder_mpp else []
    lines += [f"weights:      sha256 {about.encoder_sha256}"] if about.encoder_sha256 else []
    return list(map(printable, lines))


def grid_picture(grid: Grid) -> NDArray[np.uint8]:
    """Draw a grid: mean colours as they are, other cells by their first three principal components.

    Returns
    -------
    ndarray
        uint8 ``(h, w, 3)``, cells as squares if there are few, means of cells if there are many; white where unknown.
    """
    dimension, rows, cols = grid.values.shape
    parts = max(1, -(-max(rows, cols) // MOST_PX))
    while rows * cols * dimension > MOST_NUMBERS * parts**2:
        parts += 1
    values, known = _means(grid, parts)
    colours = values if grid.encoder.name == NAME else _components(values, known)
    picture = np.clip(np.rint((colours + 1.0) * 127.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    picture[~known] = UNKNOWN_RGB
    larger = max(1, MOST_PX // max(known.shape))
    return picture.repeat(larger, axis=0).repeat(larger, axis=1)


def _means(grid: Grid, parts: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Means of ``parts`` x ``parts`` cells, and which are known, in squares of bounded memory."""
    dimension, rows, cols = grid.values.shape
    height, width = -(-rows // parts), -(-cols // parts)
    values, known = np.empty((dimension, height, width), np.float32), np.empty((height, width), bool)
    side = max(1, isqrt(AT_ONCE // (dimension * parts**2)))
    for y, x in product(range(0, height, side), range(0, width, side)):
        box = Box(y, x, min(y + side, height), min(x + side, width))
        there = slice(box.y0, box.y1), slice(box.x0, box.x1)
        values[:, *there], known[there] = grid.window(box, parts * grid.cell_um)
    return values, known


def _components(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The first three principal components of known cells, each scaled so that two deviations fill [-1, 1]."""
    cells = values[:, known].T.astype(np.float64)
    out = np.zeros((3, *known.shape), dtype=np.float32)
    if len(cells) < 2:
        return out
    centred = cells - cells.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    scores = centred @ directions[:, ::-1][:, :3]
    out[: scores.shape[1], known] = (scores / (2.0 * scores.std(axis=0) + 1e-9)).T
    return out
