"""Uniform cubic B-splines: smooth functions from numbers on a lattice, with equal bits whatever is evaluated together.

Every value is a sum of sixteen products in a fixed order, each rounded for itself, so that it does not depend on the
box it is computed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SplineTaps:
    """The four lattice nodes each position is made of.

    Attributes
    ----------
    first:
        int64, the first node of each position.
    weight:
        float64, the positions' shape and ``[4]`` behind it; each four add up to 1.
    """

    first: NDArray[np.int64]
    weight: Floats

    @property
    def span(self) -> tuple[int, int]:
        """First node used, and one after the last."""
        return int(self.first.min()), int(self.first.max()) + 4


def spline_taps(position: Floats) -> SplineTaps:
    """Return the taps of positions in lattice units (node k lies at k), of any shape."""
    node = np.floor(position)
    t = position - node
    s = 1.0 - t
    weight = np.stack(
        [
            s * s * s / 6.0,
            (t * t * (3.0 * t - 6.0) + 4.0) / 6.0,
            (s * s * (3.0 * s - 6.0) + 4.0) / 6.0,
            t * t * t / 6.0,
        ],
        axis=-1,
    )
    return SplineTaps(node.astype(np.int64) - 1, weight)


def spline_grid(lattice: NDArray[np.float32], rows: SplineTaps, columns: SplineTaps) -> Floats:
    """Evaluate on a grid.

    Parameters
    ----------
    lattice:
        ``[h, w]``; its first node is the first of ``rows.span`` and of ``columns.span``.
    rows, columns:
        Taps of ``n`` row and ``m`` column positions.

    Returns
    -------
    float64 ``[n, m]``.
    """
    work = _along_first(lattice.astype(np.float64), rows)
    return np.ascontiguousarray(_along_first(work.T, columns).T)


def spline_points(lattice: NDArray[np.float32], rows: SplineTaps, columns: SplineTaps) -> Floats:
    """Evaluate at scattered points: ``rows`` and ``columns`` have the points' shape, which the result has, too."""
    y, x = rows.first - rows.span[0], columns.first - columns.span[0]
    nodes = lattice.ravel()
    width = lattice.shape[1]
    start = y * width + x
    out = np.zeros(start.shape)
    for a in range(4):
        line = np.zeros(start.shape)
        for b in range(4):
            line += nodes[start + (a * width + b)] * columns.weight[..., b]
        out += line * rows.weight[..., a]
    return out


def _along_first(values: Floats, taps: SplineTaps) -> Floats:
    index = taps.first - taps.span[0]
    out = np.zeros((len(index), values.shape[1]))
    for k in range(4):
        out += values[index + k] * taps.weight[:, k, None]
    return out
