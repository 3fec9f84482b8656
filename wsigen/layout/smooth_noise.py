"""Smooth random fields over a slide: octaves of B-spline noise, any place of which can be evaluated alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.layout.spline import spline_grid, spline_points, spline_taps

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
    seed:
        Of the run.
    number:
        Fields of different numbers are independent.
    size_px:
        Distance of the nodes of the coarsest octave (slide px).
    gain:
        Amplitude of an octave over that of the one before: small is smooth, 0.7 is ragged.
    octaves:
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
