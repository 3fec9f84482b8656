"""Distances between feature vectors, exact and in tiles: memory does not grow with the number of pairs.

Squared distances come from ``|x|^2 + |y|^2 - 2 x.y`` in float64, which a matrix product computes; where that cancels (two
vectors almost equal) they are computed anew from the difference, so that an exact copy has distance 0.

Memory bound: one tile of ``TILE x TILE`` float64 (32 MB) and a few of its kind at a time. Without tiles 50,000 samples on
either side would take 20 GB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Index = NDArray[np.int64]

TILE = 2048
"""Rows and columns of a tile of the distance matrix."""

_CANCELS = 1e-7
"""Squared distance over squared norms below which digits are lost: 1e-16 / 1e-7 leaves nine."""


def tiles(count: int) -> Iterator[slice]:
    """Cut ``range(count)`` into pieces of ``TILE``."""
    for start in range(0, count, TILE):
        yield slice(start, min(start + TILE, count))


def squared_distances(x: F64, y: F64) -> F64:
    """Return squared Euclidean distances float64 ``(len(x), len(y))`` of one tile."""
    norms = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :]
    squared = norms - 2.0 * (x @ y.T)
    rows, columns = np.nonzero(squared < _CANCELS * norms)
    for part in tiles(len(rows)):
        r, c = rows[part], columns[part]
        squared[r, c] = ((x[r] - y[c]) ** 2).sum(1)
    return np.asarray(np.maximum(squared, 0.0), dtype=np.float64)


def kth_distance(x: F64, k: int) -> F64:
    """Return the distance of every sample to its ``k``-th nearest other sample, float64 ``(n,)``.

    Raises
    ------
    ValueError
        If there are not more than ``k`` samples.
    """
    if len(x) <= k:
        raise ValueError(f"{len(x)} samples have no {k}-th nearest neighbour each")
    out = np.empty(len(x))
    for rows in tiles(len(x)):
        best = np.full((rows.stop - rows.start, k), np.inf)
        for columns in tiles(len(x)):
            block = squared_distances(x[rows], x[columns])
            if rows == columns:
                np.fill_diagonal(block, np.inf)
            best = np.partition(np.concatenate([best, block], axis=1), k - 1, axis=1)[:, :k]
        out[rows] = np.sqrt(best.max(axis=1))
    return out


def nearest(x: F64, y: F64) -> tuple[F64, Index]:
    """Return the distance of every ``x`` to its nearest ``y``, float64 ``(n,)``, and which one that is, int64 ``(n,)``."""
    distance, index = np.full(len(x), np.inf), np.zeros(len(x), np.int64)
    for rows in tiles(len(x)):
        for columns in tiles(len(y)):
            block = squared_distances(x[rows], y[columns])
            closest = block.argmin(axis=1)
            value = block[np.arange(len(block)), closest]
            nearer = value < distance[rows]
            distance[rows] = np.where(nearer, value, distance[rows])
            index[rows] = np.where(nearer, closest + columns.start, index[rows])
    return np.sqrt(distance), index


def balls_around(x: F64, centres: F64, radii: F64) -> Index:
    """Count, for every ``x``, the balls of ``radii`` around ``centres`` that hold it, int64 ``(len(x),)``."""
    counts = np.zeros(len(x), np.int64)
    for rows in tiles(len(x)):
        for columns in tiles(len(centres)):
            inside = squared_distances(x[rows], centres[columns]) <= radii[columns] ** 2
            counts[rows] += inside.sum(axis=1)
    return counts
