"""How visible borders are: the seam score of given borders on any image, streamed by blocks.

With ``g(x)`` the absolute difference of the grey values of two pixels side by side, a border at ``b`` has::

    score = sum over the border of g(b)  /  sum over the border of the mean of g(b + k PERIOD), k in CONTROLS

1.00 means that nobody can find the border. The places it is compared with lie near it (the same tissue), are far from every
other border, and have the same phase in JPEG's blocks and the autoencoder's cells, whose own gradients would else pass for
seams. The noise is the standard error of this ratio of sums over pieces of border ``PIECE_PX`` long.

Memory bound: one block of ``BLOCK_PX`` a side and its margin, and two numbers for each piece of border.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box, ChunkGrid

F32 = NDArray[np.float32]
ReadBox = Callable[[Box], NDArray[np.uint8]]

PERIOD = 16
"""px: a chroma block of JPEG 4:2:0, and two latent cells of an f8 autoencoder."""

CONTROLS = (-3, -2, -1, 1, 2, 3)
"""Places a border is compared with, in periods from it."""

CLEAR_PX = 8
"""A place so near to another border is not compared with."""

PIECE_PX = 256
"""Length of a piece of border: its pixels share their tissue."""

BLOCK_PX = 1024
"""Side of the blocks the image is read by."""

REACH_PX = 24
"""The seam profile reaches so far to either side."""

FLAG_SIGMA = 3.0
"""A border is visible if its score is so many standard errors off 1, above or below."""


@dataclass(frozen=True, order=True, slots=True)
class Border:
    """A straight border in px of the image: between ``at - 1`` and ``at`` along ``axis``, from ``start`` to ``stop``."""

    axis: Literal[0, 1]
    at: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class SeamScore:
    """The seam score of some borders.

    Attributes
    ----------
    name : str
        Which borders.
    score, noise : float
        The ratio and its standard error; NaN where there was nothing to compare.
    pieces : int
        Pieces of border measured.
    left_out : int
        Pieces without a place to be compared with, because other borders lie all around them.
    profile : tuple of float
        Mean gradient at ``-REACH_PX .. REACH_PX`` px from the borders, over that of the places compared with.
    """

    name: str
    score: float
    noise: float
    pieces: int
    left_out: int
    profile: tuple[float, ...]

    @property
    def visible(self) -> bool:
        """Whether the borders can be found: by steps, or by being smoother than what lies beside them."""
        return bool(abs(self.score - 1.0) > FLAG_SIGMA * self.noise)


@dataclass
class _Sums:
    """What is collected of one set of borders: gradients on and off each piece, and of the profile."""

    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    left_out: int = 0
    profile: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2 * REACH_PX + 1))
    lengths: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2 * REACH_PX + 1))


def seam_scores(read: ReadBox, size: tuple[int, int], groups: dict[str, list[Border]]) -> list[SeamScore]:
    """Measure the seam score of every group of borders in one pass over an image.

    Parameters
    ----------
    read : callable
        Returns uint8 ``(h, w, 3)`` of a box of the image.
    size : tuple of int
        ``(height, width)``, px.
    groups : dict
        Borders by name. Other borders of a group that run beside a piece are kept clear of; those of other groups are not.
    """
    sums = {name: _Sums() for name in groups}
    placed = {name: _by_block(borders, size) for name, borders in groups.items()}
    beside = {name: _beside(blocks) for name, blocks in placed.items()}
    grid = ChunkGrid(*size, BLOCK_PX)
    margin = max(REACH_PX, PERIOD * max(CONTROLS)) + 1
    for ij in grid:
        if not any(ij in blocks for blocks in placed.values()):
            continue
        box = grid.box(ij).dilate(margin).intersect(Box(0, 0, *size))
        grey = read(box).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        gradients = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1)).T
        origin = (box.y0, box.x0)
        for name, blocks in placed.items():
            for piece in blocks.get(ij, []):
                along = origin[1 - piece.axis]
                part = gradients[piece.axis][:, piece.start - along : piece.stop - along].mean(axis=1, dtype=np.float64)
                _collect(sums[name], part, piece, origin[piece.axis], beside[name][_strip(piece)])
    return [_score(name, collected) for name, collected in sums.items()]


def periodic_borders(size: tuple[int, int], period: int) -> list[Border]:
    """Borders every ``period`` px along both axes of an image of ``(height, width)``."""
    height, width = size
    return [Border(0, y, 0, width) for y in range(period, height, period)] + [
        Border(1, x, 0, height) for x in range(period, width, period)
    ]


def merged(borders: Iterable[Border]) -> list[Border]:
    """Unite borders that overlap on one line, so that no pixel of a border counts twice."""
    lines: dict[tuple[Literal[0, 1], int], list[tuple[int, int]]] = defaultdict(list)
    for b in borders:
        lines[(b.axis, b.at)].append((b.start, b.stop))
    out = []
    for (axis, at), spans in lines.items():
        spans.sort()
        start, stop = spans[0]
        for first, last in spans[1:]:
            if first > stop:
                out.append(Border(axis, at, start, stop))
                start, stop = first, last
            stop = max(stop, last)
        out.append(Border(axis, at, start, stop))
    return sorted(out)


def common(groups: Sequence[list[Border]]) -> list[Border]:
    """Return the borders, or parts of them, that lie in every one of some groups; each group's are `merged`."""
    shared = list(groups[0]) if groups else []
    for group in groups[1:]:
        lines: dict[tuple[int, int], list[Border]] = defaultdict(list)
        for b in group:
            lines[b.axis, b.at].append(b)
        pairs = ((a, b) for a in shared for b in lines[a.axis, a.at])
        parts = (Border(a.axis, a.at, max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)
        shared = [part for part in parts if part.start < part.stop]
    return shared


def _by_block(borders: Iterable[Border], size: tuple[int, int]) -> dict[tuple[int, int], list[Border]]:
    """Cut borders into pieces and sort these by the block that reads them."""
    blocks: dict[tuple[int, int], list[Border]] = defaultdict(list)
    for border in merged(borders):
        if not 0 < border.at < size[border.axis]:
            continue
        stop = min(border.stop, size[1 - border.axis])
        for a in range(border.start // PIECE_PX * PIECE_PX, stop, PIECE_PX):
            piece = Border(border.axis, border.at, max(a, border.start), min(a + PIECE_PX, stop))
            block = (border.at // BLOCK_PX, a // BLOCK_PX)
            blocks[block if border.axis == 0 else block[::-1]].append(piece)
    return blocks


def _strip(piece: Border) -> tuple[int, int]:
    """The strip of the image, ``PIECE_PX`` wide, that a piece crosses: its axis, and its place across it."""
    return piece.axis, piece.start // PIECE_PX


def _beside(blocks: dict[tuple[int, int], list[Border]]) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Where the pieces within one strip lie, sorted.

    Only they are beside each other: a slide of randomly placed windows has a border somewhere at nearly every line.
    """
    strips: dict[tuple[int, int], set[int]] = defaultdict(set)
    for pieces in blocks.values():
        for piece in pieces:
            strips[_strip(piece)].add(piece.at)
    return {strip: np.array(sorted(places), np.int64) for strip, places in strips.items()}


def _collect(sums: _Sums, part: NDArray[np.float64], piece: Border, origin: int, others: NDArray[np.int64]) -> None:
    """Add one piece; ``part[i]`` is the mean gradient between the lines ``origin + i`` and ``origin + i + 1``."""
    at = piece.at - origin - 1
    places = [k * PERIOD for k in CONTROLS if 0 <= at + k * PERIOD < len(part)]
    clear = [d for d in places if _distance(others, piece.at + d) >= CLEAR_PX]
    if not clear:
        sums.left_out += 1
        return
    length = piece.stop - piece.start
    sums.on.append(float(part[at]) * length)
    sums.off.append(float(part[[at + d for d in clear]].mean()) * length)
    low, high = max(0, at - REACH_PX), min(len(part), at + REACH_PX + 1)
    window = slice(low - at + REACH_PX, high - at + REACH_PX)
    sums.profile[window] += part[low:high] * length
    sums.lengths[window] += length


def _distance(sorted_places: NDArray[np.int64], place: int) -> int:
    i = int(np.searchsorted(sorted_places, place))
    return min((abs(int(v) - place) for v in sorted_places[max(0, i - 1) : i + 1]), default=1 << 30)


def _score(name: str, sums: _Sums) -> SeamScore:
    on, off = np.array(sums.on), np.array(sums.off)
    n = len(on)
    if n < 2 or off.sum() == 0:
        return SeamScore(name, math.nan, math.nan, n, sums.left_out, ())
    ratio = on.sum() / off.sum()
    noise = float(math.sqrt(n / (n - 1) * ((on - ratio * off) ** 2).sum()) / off.sum())
    level = off.sum() / sums.lengths[REACH_PX]
    profile = np.divide(sums.profile, sums.lengths, out=np.full(len(sums.profile), np.nan), where=sums.lengths > 0) / level
    return SeamScore(name, float(ratio), noise, n, sums.left_out, tuple(float(v) for v in profile))
