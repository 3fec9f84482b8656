"""DiffInfinite's plan: crops at random places until every pixel is covered.

The paper draws centres among uncovered pixels until none is left (algorithm 1). Drawing uniformly among uncovered pixels
equals visiting all pixels in random order and skipping covered ones; with the order given by a hash of (seed, step, y, x) the
process has no state. A crop depends only on crops near it, so a chunk finds its own crops from itself and a margin, which is
widened until no pixel outside it can matter. No global state, no global search; ``tests/sampling/test_plans.py``
checks it against the process on the whole canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import overload

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.base.noise import priority_field
from wsigen.sampling.plan import TAPERS, Crop, centre

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RandomPatchPlan:
    """Random crops; a pixel belongs to the first crop that covered it.

    Attributes
    ----------
    height, width : int
        Canvas, latent px; each at least ``side``.
    seed, level : int
        Seed of the run and index of the pass: they decide the order of the pixels.
    side : int
        Crop side, latent px (even).
    steps : int
        Transitions of the pass.
    weighted_last : int
        In so many last steps all crops that cover a pixel share it (weights of ``taper``) instead of its first crop
        owning it: ownership borders of the last steps are what an eye would find.
    taper : str
        A name in `plan.TAPERS`, for those steps.
    align : int
        Crops begin at multiples of it, but for those at the far edges.
    """

    height: int
    width: int
    seed: int
    level: int = 0
    side: int = 64
    steps: int = 0
    weighted_last: int = 0
    taper: str = "linear"
    align: int = 1

    def crops(self, step: int, box: Box) -> list[Crop]:
        """Crops of ``step`` whose centre lies in ``box``, in the order they were drawn."""
        drawn = draw(self, step, box.dilate(self.side))
        weighted = self.weighted_last > 0 and step >= self.steps - self.weighted_last
        weights = _shared(drawn, self.side, self.taper) if weighted else _owned(drawn)
        return [Crop(crop, weight) for crop, weight in zip(drawn, weights, strict=True) if box.contains(*centre(crop))]


def draw(plan: RandomPatchPlan, step: int, box: Box) -> list[Box]:
    """All crops of ``step`` whose centre lies in ``box``, ascending by priority."""
    canvas = Box(0, 0, plan.height, plan.width)
    margin = 3 * plan.side
    while True:
        region = box.dilate(margin).intersect(canvas)
        certain, doubtful = _visit(plan, step, region)
        if not doubtful[box.intersect(canvas).relative_to(region).slices].any():
            return [crop for crop in certain if box.contains(*centre(crop))]
        margin += 2 * plan.side


def _visit(plan: RandomPatchPlan, step: int, region: Box) -> tuple[list[Box], NDArray[np.bool_]]:
    """Visit the pixels of ``region`` in priority order.

    Returns the crops that are certain whatever lies outside, and the centres (bool, of the region) of those that may or
    may not have been drawn. Visiting goes in layers of ascending priority, so that only uncovered pixels are ever sorted;
    within a layer doubt spreads first, which can only overstate it.
    """
    priority = priority_field(plan.seed, region, plan.level, step)
    covered = np.zeros(region.shape, dtype=bool)
    doubt = _outside_reach(plan, region)
    centres = np.zeros(region.shape, dtype=bool)
    certain: list[Box] = []
    share = 1.0 / plan.side**2
    low = 0
    while low < 2**64:
        high = min(2**64, int(share * 2.0**64))
        ys, xs = np.nonzero(~covered & (priority >= np.uint64(low)) & (priority <= np.uint64(high - 1)))
        _spread_doubt(plan, region, ys, xs, doubt, centres)
        sure = ~doubt[ys, xs]
        ys, xs = ys[sure], xs[sure]
        order = np.argsort(priority[ys, xs], kind="stable")
        for y, x in zip(ys[order].tolist(), xs[order].tolist(), strict=True):
            if not covered[y, x]:
                y0, x0 = _corner(plan, y + region.y0, plan.height), _corner(plan, x + region.x0, plan.width)
                crop = Box(y0, x0, y0 + plan.side, x0 + plan.side)
                covered[crop.intersect(region).relative_to(region).slices] = True
                certain.append(crop)
        low, share = high, share * 2.0
    return certain, centres


def _spread_doubt(
    plan: RandomPatchPlan, region: Box, ys: Index, xs: Index, doubt: NDArray[np.bool_], centres: NDArray[np.bool_]
) -> None:
    """Mark as doubtful whatever a doubtful candidate ``(ys, xs)`` of this layer might cover, until nothing changes."""
    while True:
        new = doubt[ys, xs]
        if not new.any():
            return
        y0 = _corner(plan, ys[new] + region.y0, plan.height) - region.y0
        x0 = _corner(plan, xs[new] + region.x0, plan.width) - region.x0
        _mark(doubt, y0, x0, plan.side)
        half = plan.side // 2
        centres[np.clip(y0 + half, 0, region.height - 1), np.clip(x0 + half, 0, region.width - 1)] = True
        ys, xs = ys[~new], xs[~new]


def _mark(mask: NDArray[np.bool_], y0: Index, x0: Index, side: int) -> None:
    """Set all squares with corners ``(y0, x0)`` in ``mask``: two running sums instead of a loop over squares."""
    height, width = mask.shape
    change = np.zeros((height + 1, width + 1), dtype=np.int32)
    top, bottom = np.clip(y0, 0, height), np.clip(y0 + side, 0, height)
    left, right = np.clip(x0, 0, width), np.clip(x0 + side, 0, width)
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(change, (y, x), sign)
    mask |= change.cumsum(axis=0).cumsum(axis=1)[:height, :width] > 0


def _outside_reach(plan: RandomPatchPlan, region: Box) -> NDArray[np.bool_]:
    """Pixels that a crop centred outside ``region`` may cover: a band of one side along edges inside the canvas."""
    reach = np.ones(region.shape, dtype=bool)
    inner = Box(
        plan.side if region.y0 > 0 else 0,
        plan.side if region.x0 > 0 else 0,
        region.height - (plan.side if region.y1 < plan.height else 0),
        region.width - (plan.side if region.x1 < plan.width else 0),
    )
    if not inner.empty:
        reach[inner.slices] = False
    return reach


@overload
def _corner(plan: RandomPatchPlan, centre_px: int, extent: int) -> int: ...
@overload
def _corner(plan: RandomPatchPlan, centre_px: Index, extent: int) -> Index: ...
def _corner(plan: RandomPatchPlan, centre_px: int | Index, extent: int) -> int | Index:
    """First pixel of the crop around ``centre_px`` along one axis, aligned, moved inside ``[0, extent)``."""
    first = centre_px - plan.side // 2
    first = first - first % plan.align
    if isinstance(first, int):
        return min(max(first, 0), extent - plan.side)
    return np.clip(first, 0, extent - plan.side)


def _owned(crops: list[Box]) -> list[NDArray[np.float32]]:
    """Weight 1 where a crop is the first of ``crops`` (ascending by priority) to cover a pixel, else 0."""
    if not crops:
        return []
    around = reduce(Box.union, crops)
    owner = np.full(around.shape, -1, dtype=np.int32)
    for k in reversed(range(len(crops))):
        owner[crops[k].relative_to(around).slices] = k
    return [(owner[c.relative_to(around).slices] == k).astype(np.float32) for k, c in enumerate(crops)]


def _shared(crops: list[Box], side: int, taper: str) -> list[NDArray[np.float32]]:
    """Taper weights over the sum of the tapers of all ``crops`` that cover a pixel."""
    if not crops:
        return []
    raw = TAPERS[taper](side)
    around = reduce(Box.union, crops)
    total = np.zeros(around.shape)
    for crop in crops:
        total[crop.relative_to(around).slices] += raw
    return [(raw / total[c.relative_to(around).slices]).astype(np.float32) for c in crops]
