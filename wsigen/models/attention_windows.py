"""Windows in which a decoder's attention looks: a lattice that depends on the canvas alone, and what it costs.

Attention has no radius: what a pixel becomes depends on the whole picture that is decoded at once. On a slide its
picture is a window of the lattice; where windows overlap their features are blended by Hann weights that add up to one, so
that whoever decodes a block finds the same features in it. Of a window only the cells that a block needs ask (`CELL`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.models.card import Config
from wsigen.models.receptive import BEFORE_ATTENTION, EFFECTIVE_HALO, attended_radius, work
from wsigen.sampling.plan import lattice_starts

SIDE = 128
"""Side of a window in latent px, or the canvas' where that is smaller."""

OVERLAP = 32
"""Overlap of windows in latent px."""

CELL = 32
"""Side of the squares of a window, in latent px, that ask together: each whole and for itself, so that shapes and therefore
bits do not depend on who needs them."""


PART = 256
"""Side of what shares its features, in latent px: a block of 2048 px. With its context it bounds the features held at once."""


@dataclass(frozen=True)
class AttentionWindow:
    """A window of the lattice.

    Attributes
    ----------
    box:
        On the canvas, latent px.
    weight:
        float32 ``[h, w]``; over all windows they add up to one at every pixel.
    around:
        The box with the context that the layers before the attention need, as far as the canvas goes.
    cells:
        The squares of it that are needed, on the canvas.
    """

    box: Box
    weight: NDArray[np.float32]
    around: Box
    cells: list[Box]


def attention_windows(canvas: Box, needed: Sequence[Box]) -> list[AttentionWindow]:
    """The windows that have a part in the features of ``needed`` boxes, row-major."""
    hull = hull_of(needed)
    found = []
    for y, rows in _axis(canvas.height):
        if y >= hull.y1 or y + len(rows) <= hull.y0:
            continue
        for x, columns in _axis(canvas.width):
            if x >= hull.x1 or x + len(columns) <= hull.x0:
                continue
            box = Box(y, x, y + len(rows), x + len(columns))
            if cells := [cell for cell in _cells(box) if any(cell.overlaps(other) for other in needed)]:
                around = box.dilate(BEFORE_ATTENTION).intersect(canvas)
                found.append(AttentionWindow(box, np.outer(rows, columns), around, cells))
    return found


def hull_of(boxes: Sequence[Box]) -> Box:
    """The smallest box around all of them (at least one)."""
    hull = boxes[0]
    for box in boxes[1:]:
        hull = hull.union(box)
    return hull


@lru_cache(maxsize=8)
def _axis(extent: int) -> list[tuple[int, NDArray[np.float32]]]:
    """First pixel and weights of every window along an axis of ``extent`` px, which add up to one at every pixel."""
    side = min(SIDE, extent)
    starts = lattice_starts(extent, side, side - min(OVERLAP, side // 2))
    hann = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(extent)
    for start in starts:
        total[start : start + side] += hann
    return [(start, (hann / total[start : start + side]).astype(np.float32)) for start in starts]


def _cells(box: Box) -> list[Box]:
    return [
        Box(y, x, y + CELL, x + CELL).intersect(box) for y in range(box.y0, box.y1, CELL) for x in range(box.x0, box.x1, CELL)
    ]


def attended_redundancy(vae: Config, window: int) -> float:
    """Multiplications of decoding an inner part of a slide, attention and all, over those of one window of its area.

    Averaged over where the part lies on the lattice. Attention asks ``SIDE**2`` pixels for every pixel either way.

    Parameters
    ----------
    window:
        Side of the windows in which the layers after the attention work, latent px.
    """
    halo = min(attended_radius(vae), EFFECTIVE_HALO)
    before, _ = work(vae, 1, 0, end=BEFORE_ATTENTION)
    after, once = (found / window**2 for found in work(vae, window, halo, BEFORE_ATTENTION))
    width = list(vae.get("block_out_channels", (64,)))[-1]
    given, asked = 3 * width**2, width**2 + 2 * width * SIDE**2
    reach, stride = PART + 2 * halo, SIDE - OVERLAP
    windows = ((reach + SIDE - 1) / stride * SIDE / PART) ** 2
    cells = ((reach + CELL - 1) * SIDE / stride / PART) ** 2
    context = ((SIDE + 2 * BEFORE_ATTENTION) / SIDE) ** 2
    done = windows * (before * context + given) + cells * asked + after
    return done / (before + given + asked + once)


def attended_halo(vae: Config, window: int) -> float:
    """Context in latent px around each window that would cost as much, were it decoded through all layers."""
    return window * (math.sqrt(attended_redundancy(vae, window)) - 1.0) / 2.0
