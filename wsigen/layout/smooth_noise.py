"""Smooth functions over a slide, any place of which can be evaluated alone: cubic B-splines, and octaves of noise made of them.

Every value of a spline is a sum of sixteen products in a fixed order, each rounded for itself, so that it does not depend
on the box it is computed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field

Floats = NDArray[np.float64]

_PAD = 64
"""Lattice nodes before the slide's corner, so that warped places a little outside have their nodes, too."""

_DEVIATION = 0.479
"""Standard deviation of a two-dimensional cubic B-spline over white noise: the mean over t of the sum of squared weights."""

_MOST_OCTAVES = 8

_FINEST_PX = 24.0
"""No octave is finer: below three cells of an f8 latent it would be gravel."""


@dataclass(frozen=True, slots=True)
class SmoothField:
    """A random field of about unit variance, ``sum over k of gain^k B_k``, where B_k has features of ``size_px / 2^k``.

    Attributes
    ----------
    seed : int
        Of the run.
    number : int
        Fields of different numbers are independent.
    size_px : float
        Distance of the nodes of the coarsest octave (slide px).
    gain : float
        Amplitude of an octave over that of the one before: small is smooth, 0.7 is ragged.
    octaves : int
        At most so many; none finer than 24 px.
    """

    seed: int
    number: int
    size_px: float
    gain: float = 0.5
    octaves: int = 5

    def grid(self, ys: Floats, xs: Floats) -> Floats:
        """Values where rows ``ys [n]`` and columns ``xs [m]`` (slide px) cross: float64 ``[n, m]``."""
        return self._sum(ys, xs, on_grid=True)

    def points(self, ys: Floats, xs: Floats) -> Floats:
        """Values at points ``(ys, xs)`` of equal shape (slide px), at most 60 of the finest features outside the slide."""
        return self._sum(ys, xs, on_grid=False)

    def _sum(self, ys: Floats, xs: Floats, on_grid: bool) -> Floats:
        total: Floats | None = None
        power = 0.0
        for octave in range(min(self.octaves, _MOST_OCTAVES)):
            size = self.size_px / 2**octave
            if octave and size < _FINEST_PX:
                break
            amplitude = self.gain**octave
            part = self._octave(octave, ys / size, xs / size, on_grid) * amplitude
            total = part if total is None else total + part
            power += amplitude * amplitude
        assert total is not None
        return total / (_DEVIATION * power**0.5)

    def _octave(self, octave: int, v: Floats, u: Floats, on_grid: bool) -> Floats:
        rows, columns = spline_taps(v + _PAD), spline_taps(u + _PAD)
        box = Box(rows.span[0], columns.span[0], rows.span[1], columns.span[1])
        lattice = normal_field(self.seed, Stream.LAYOUT, box, 1, level=octave, step=self.number)[0]
        return (spline_grid if on_grid else spline_points)(lattice, rows, columns)


@dataclass(frozen=True, slots=True)
class SplineTaps:
    """The four lattice nodes each position is made of.

    Attributes
    ----------
    first : ndarray
        int64, the first node of each position.
    weight : ndarray
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
    lattice : ndarray
        ``[h, w]``; its first node is the first of ``rows.span`` and of ``columns.span``.
    rows, columns : SplineTaps
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
