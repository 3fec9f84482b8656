"""Fill polygons into a box of cells, by the class at every cell's centre.

Each crossing of an edge with a row of centres is computed in the coordinates of the slide, never in those
of the box. So a cell gets the same bits whatever box it is read with, which a rasteriser that first moves
the polygon to the box does not promise. Edges run downwards and intervals are half-open: polygons that
share an edge leave no gap and never overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsigen.base.geometry import Box


def downward_edges(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Return the edges of all rings of a polygon, upper end first, without the horizontal ones.

    Parameters
    ----------
    rings:
        Outline and holes, each float64 ``[n, 2]`` of (x, y), the last point equal to the first.

    Returns
    -------
    float64 ``[edges, 4]`` of (y0, x0, y1, x1) with y0 < y1.
    """
    parts = [np.concatenate([ring[:-1, ::-1], ring[1:, ::-1]], axis=1) for ring in rings]
    edges = np.concatenate(parts)
    edges = edges[edges[:, 0] != edges[:, 2]]
    upward = edges[:, 0] > edges[:, 2]
    edges[upward] = edges[upward][:, [2, 3, 0, 1]]
    return edges


def inside(edges: np.ndarray, box: Box, cell_px: int) -> np.ndarray:
    """Return which cells of ``box`` have their centre inside a polygon (even-odd rule).

    Parameters
    ----------
    edges:
        From `downward_edges` (slide px).
    box:
        In cells of ``cell_px`` slide pixels.

    Returns
    -------
    bool ``[box.height, box.width]``.
    """
    first = np.clip(np.ceil(edges[:, 0] / cell_px - 0.5), box.y0, box.y1).astype(np.int64)
    last = np.clip(np.ceil(edges[:, 2] / cell_px - 0.5), box.y0, box.y1).astype(np.int64)
    count = last - first
    crossing = count > 0
    edges, first, count = edges[crossing], first[crossing], count[crossing]

    which = np.repeat(np.arange(len(edges)), count)
    row = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + first[which]
    y0, x0, y1, x1 = edges[which].T
    x = x0 + ((row + 0.5) * cell_px - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(x / cell_px - 0.5), box.x0, box.x1).astype(np.int64)

    flat = (row - box.y0) * (box.width + 1) + (column - box.x0)
    toggles = np.bincount(flat, minlength=box.height * (box.width + 1)).reshape(box.height, box.width + 1)
    return np.cumsum(toggles[:, :-1], axis=1) % 2 == 1
