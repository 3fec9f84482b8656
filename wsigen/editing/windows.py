"""Windows of a slide in which places are made anew: what a run is made of instead of the whole slide."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.models.card import BundleCard

LEAST_PX = 1024
"""Side of a window, where the slide is so large, px."""


def windows_of(
    bounds: NDArray[np.float64], size: tuple[int, int], around_px: int, step: int, least: int = LEAST_PX
) -> list[Box]:
    """Boxes of a slide that hold regions and their surroundings, and do not overlap.

    Parameters
    ----------
    bounds : ndarray
        ``(n, 4)``: x0, y0, x1, y1 of each region, px.
    size : tuple of int
        ``(height, width)`` of the slide, px.
    around_px : int
        How much of the surroundings is needed, px.
    step : int
        Boxes begin and end at multiples of it, px, or at the slide's edge.
    least : int
        Shortest side of a box, where the slide has as much.

    Returns
    -------
    list of Box
        From the top down.
    """
    canvas = Box(0, 0, *size)
    boxes: list[Box] = []
    for x0, y0, x1, y1 in bounds.tolist():
        wanted = Box(int(y0 // 1), int(x0 // 1), int(-(-y1 // 1)), int(-(-x1 // 1))).dilate(around_px)
        top, bottom = _fitted(wanted.y0, wanted.y1, size[0], step, least)
        left, right = _fitted(wanted.x0, wanted.x1, size[1], step, least)
        boxes = _with_another(boxes, Box(top, left, bottom, right).intersect(canvas))
    return sorted(boxes)


def seed_of(seed: int, window: Box) -> int:
    """Seed of a window's noise, which counts from the window's corner.

    With the edit's own seed, regions in the middle of their windows would all grow from equal noise and look alike, and a place
    of a synthetic slide made anew by the slide's seed would come out as it was.
    """
    text = f"wsigen edit {seed} {window.x0} {window.y0}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _fitted(start: int, stop: int, extent: int, step: int, least: int) -> tuple[int, int]:
    """An interval with both ends on multiples of ``step`` or at the edge, moved inwards rather than cut short."""
    missing = max(0, least - (stop - start))
    start, stop = start - missing // 2, stop + missing - missing // 2
    start = max(0, min(start, extent - least)) // step * step
    stop = max(stop, start + least)
    return start, min(extent, -(-stop // step) * step)


def _with_another(boxes: Sequence[Box], box: Box) -> list[Box]:
    """Boxes that do not overlap, and one more: it becomes one with those that it overlaps."""
    kept = list(boxes)
    while others := [other for other in kept if other.overlaps(box)]:
        kept = [other for other in kept if not other.overlaps(box)]
        box = reduce(Box.union, others, box)
    return [*kept, box]


def cell_px_of(card: BundleCard) -> int:
    """The least side, px, of which the cells of each pass of a model are whole parts: windows begin at multiples of it."""
    levels = list(card.levels) + (list(card.grid.network.levels) if card.grid and card.grid.network else [])
    finest = card.levels[0].mpp
    ratios = [round(level.mpp / finest) if level.mpp and finest else 1 for level in levels]
    return card.latent.factor * math.lcm(*ratios)


def surroundings_px(card: BundleCard) -> int:
    """A crop of the finest level, px: the model sees half of it of what stays.

    With less, crops that would leave the window are moved inwards, onto what is made: more of them reach the model, and their
    borders lie at one place in every step.
    """
    return card.crop_latent * card.latent.factor
