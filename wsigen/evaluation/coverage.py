"""Training crops for the memorisation measures: all over the tissue, and how much of it they reach.

A copy is only seen if a training crop lies near what was copied. A few random crops of many slides leave most of the tissue
out, and verbatim copies of it would pass; so the training side is drawn on a lattice of half a crop, on which every place
has a crop within a quarter of a side along both axes (56 % common area at least).
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from wsigen.base.geometry import Box
from wsigen.evaluation.sides.sides import Crop, Side, place_crops, places_of

LATTICE_SHARE = 1 / 16
"""Tissue of a crop of the lattice: one that is half tissue shares 9/16 of its area with its nearest crop of the lattice, of
which 1/2 - 7/16 are tissue in the worst case."""

COVERED_LEAST = 0.9
"""Share of the training tissue below which C_T and authenticity are given with a warning."""


def place_training(side: Side, most: int, least: int, side_px: int, mpp: float | None, seed: int) -> list[Crop]:
    """Place crops of ``side_px`` every half crop over the tissue of a side, or a random ``most`` of these places.

    Memory bound: ``most`` places and those of one image.

    Parameters
    ----------
    most, least:
        Crops; a side whose lattice has fewer than ``least`` gets as many random ones (`sides.place_crops`).

    Raises
    ------
    EvaluationError
        If no image has tissue, or all are smaller than a crop.
    """
    rng = np.random.default_rng([seed, 3])
    kept, keys = np.zeros((0, 3), np.int64), np.zeros(0)
    for i in range(len(side.members)):
        places = places_of(side, i, side_px, mpp)
        if places is None or not places.mask.count:
            continue
        corners = places.lattice(max(1, side_px // 2), LATTICE_SHARE)
        kept = np.concatenate([kept, np.insert(corners, 0, i, axis=1)])
        keys = np.concatenate([keys, rng.random(len(corners))])
        if len(keys) > most:
            chosen = np.argpartition(keys, most)[:most]
            kept, keys = kept[chosen], keys[chosen]
    if len(kept) < least:
        return place_crops(side, least, side_px, mpp, seed)
    ordered = kept[np.lexsort((kept[:, 2], kept[:, 1], kept[:, 0]))].tolist()
    return [Crop(i, Box(y, x, y + side_px, x + side_px), side.members[i].canvas(mpp)) for i, y, x in ordered]


def coverage(side: Side, crops: list[Crop], side_px: int, mpp: float | None) -> float:
    """Share of a side's tissue that crops reach: of the places for a crop, those with one a quarter of a side off at most.

    0 to 1, by area; NaN for a side without any place.
    """
    boxes: dict[int, list[Box]] = defaultdict(list)
    for crop in crops:
        boxes[crop.member].append(crop.box)
    total = reached = 0.0
    for i in range(len(side.members)):
        places = places_of(side, i, side_px, mpp)
        if places is not None:
            count, near = places.near(boxes[i])
            total, reached = total + count * places.cell_px, reached + near * places.cell_px
    return reached / total if total else float("nan")


def overlapping(crops: list[Crop]) -> float:
    """Share of crops that share a pixel with another crop: these are not independent. 0 to 1; NaN without any crop."""
    from scipy.spatial import cKDTree

    if not crops:
        return float("nan")
    corners: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for crop in crops:
        corners[crop.member].append((crop.box.y0, crop.box.x0))
    side_px, count = crops[0].box.height, 0
    for places in corners.values():
        tree = cKDTree(places)
        apart, _ = tree.query(places, k=2, p=np.inf, distance_upper_bound=side_px)  # squares overlap if both axes are nearer
        count += int(np.isfinite(apart[:, 1]).sum())
    return count / len(crops)


def coverage_warning(name: str, covered: float, crops: int) -> list[str]:
    """Say that copies of what no crop reaches cannot be seen, where that is much."""
    if covered >= COVERED_LEAST:
        return []
    more = "--training-crops" if name == "training" else "--crops, or give the training data as --training"
    return [
        f"{name} crops cover {covered:.0%} of the {name} tissue; copies of the rest cannot be seen: C_T and authenticity "
        f"tell of no more than that share; {crops} crops were taken, raise {more}"
    ]
