"""Where a sampled slide has tissue: pieces with an irregular outline on glass, with holes and cracks in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.noise import Stream, uniforms
from wsigen.layout.smooth_noise import SmoothField
from wsigen.layout.subtypes import SectionShape

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

OUTLINE, HOLES, CRACKS, CRACKED = 0, 1, 2, 3
"""Numbers of the section's fields; those of the classes begin at 16."""

_SHORE = 0.12
"""Width of the strip along the slide's edge in which the outline is bent inwards, as a share of the shorter side."""

_BEND = 1.5
"""How much lower the outline's function is at the edge: more than the outline's own roughness in most places."""

_MARGIN, _MARGIN_SLOPE = 0.01, 20.0
"""Share of the shorter side that stays glass along the edge, and how steeply the function falls there."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An ellipse-like piece: centre and radii (slide px), turned by the cosine and sine of its angle."""

    y: float
    x: float
    ry: float
    rx: float
    cos: float
    sin: float

    def inside(self, ys: Floats, xs: Floats) -> Floats:
        """1 at the centre, 0 on the outline, negative outside; ``ys [n]``, ``xs [m]`` -> ``[n, m]``."""
        dy, dx = (ys - self.y)[:, None], (xs - self.x)[None, :]
        v = (dy * self.cos - dx * self.sin) / self.ry
        u = (dy * self.sin + dx * self.cos) / self.rx
        return 1.0 - np.sqrt(v * v + u * u)


@dataclass(frozen=True, slots=True)
class Section:
    """The tissue of a slide as a function of place; thresholds are set so that the asked shares come out."""

    height: int
    width: int
    pieces: tuple[Piece, ...]
    roughness: float
    outline: SmoothField
    holes: SmoothField
    cracks: SmoothField
    cracked: SmoothField
    outline_above: float = 0.0
    holes_above: float = np.inf
    cracks_below: float = -np.inf

    def height_of(self, ys: Floats, xs: Floats) -> Floats:
        """The function whose level set is the outline: high inside, ``[n, m]``."""
        shape = self.pieces[0].inside(ys, xs)
        for piece in self.pieces[1:]:
            shape = np.maximum(shape, piece.inside(ys, xs))
        shape = shape + self.roughness * self.outline.grid(ys, xs)
        edge_y = np.minimum(ys, self.height - ys)[:, None]
        edge_x = np.minimum(xs, self.width - xs)[None, :]
        edge = np.minimum(edge_y, edge_x) / min(self.height, self.width)
        near = np.maximum(0.0, 1.0 - edge / _SHORE)
        return np.minimum(shape - _BEND * near * near, _MARGIN_SLOPE * (edge - _MARGIN))

    def crack_of(self, ys: Floats, xs: Floats) -> Floats:
        """Low along the zero lines of one field, where another one is high: cracks of limited length, ``[n, m]``."""
        line = np.abs(self.cracks.grid(ys, xs))
        where = self.cracked.grid(ys, xs) - 0.5
        return np.where(where > 0.0, line / np.maximum(where, 1e-6), np.inf)

    def tissue(self, ys: Floats, xs: Floats) -> Mask:
        """Whether there is tissue where rows ``ys [n]`` and columns ``xs [m]`` cross (slide px)."""
        tissue = self.height_of(ys, xs) > self.outline_above
        if tissue.any() and np.isfinite(self.holes_above):
            tissue &= self.holes.grid(ys, xs) <= self.holes_above
        if tissue.any() and np.isfinite(self.cracks_below):
            tissue &= self.crack_of(ys, xs) >= self.cracks_below
        return tissue


def make_section(seed: int, height: int, width: int, shape: SectionShape, mpp: float, ys: Floats, xs: Floats) -> Section:
    """Draw a slide's pieces and set its thresholds.

    Parameters
    ----------
    height, width : int
        Of the slide (px).
    mpp : float
        um per slide px.
    ys, xs : ndarray
        Rows and columns (slide px) of the sample from which the thresholds are read, evenly spread over the slide.
    """
    short = min(height, width)
    pieces = _pieces(seed, height, width, shape)
    radius = min(min(p.ry, p.rx) for p in pieces)
    hole = min(shape.hole_um / mpp, short / 16)
    section = Section(
        height,
        width,
        pieces,
        shape.roughness,
        SmoothField(seed, OUTLINE, 1.1 * radius, gain=0.42, octaves=7),
        SmoothField(seed, HOLES, hole, gain=0.4, octaves=4),
        SmoothField(seed, CRACKS, short / 5, gain=0.35, octaves=5),
        SmoothField(seed, CRACKED, short / 6, gain=0.5, octaves=3),
    )
    return _with_thresholds(section, shape, ys, xs)


def _pieces(seed: int, height: int, width: int, shape: SectionShape) -> tuple[Piece, ...]:
    """Pieces in equal strips along the longer side, each jittered in place, size and angle."""
    n = shape.pieces
    draws = uniforms(seed, Stream.LAYOUT, 5 * n, step=1 << 20).reshape(n, 5).tolist()
    along, across = max(height, width), min(height, width)
    rows = max(1, round((n * across / along) ** 0.5 * 0.8)) if n > 5 else 1
    columns = -(-n // rows)
    pieces = []
    for k, (a, b, c, d, e) in enumerate(draws):
        row, column = divmod(k, columns)
        in_row = min(columns, n - row * columns)
        step_u, step_v = along / in_row, across / rows
        u = step_u * (column + 0.5 + 0.12 * (a - 0.5))
        v = step_v * (row + 0.5 + 0.12 * (b - 0.5))
        ru = 0.5 * step_u * shape.slimness * (0.8 + 0.2 * c)
        rv = 0.5 * step_v * (0.75 + 0.25 * d)
        sin = 0.5 * (e - 0.5) * min(1.0, ru / rv)
        cos = (1.0 - sin * sin) ** 0.5
        pieces.append(Piece(v, u, rv, ru, cos, sin) if width >= height else Piece(u, v, ru, rv, cos, sin))
    return tuple(pieces)


def _with_thresholds(section: Section, shape: SectionShape, ys: Floats, xs: Floats) -> Section:
    """Cut outline, holes and cracks at the quantiles of the sample that give the asked shares."""
    from dataclasses import replace

    piece_share = min(0.97, shape.tissue / ((1.0 - shape.holes) * (1.0 - shape.cracks)))
    level = section.height_of(ys, xs)
    section = replace(section, outline_above=float(np.quantile(level, 1.0 - piece_share)))
    inside = level > section.outline_above
    if shape.holes:
        values = section.holes.grid(ys, xs)[inside]
        section = replace(section, holes_above=float(np.quantile(values, 1.0 - shape.holes)))
        inside = section.tissue(ys, xs)
    if shape.cracks:
        values = section.crack_of(ys, xs)[inside]
        share = min(shape.cracks, float(np.isfinite(values).mean()))
        below = float(np.quantile(values, share, method="lower")) if share else -np.inf
        section = replace(section, cracks_below=below if np.isfinite(below) else -np.inf)
    return section
