"""Where crops are taken: random ones from tissue, and a lattice of them over training data, for copies to be seen.

A copy is only seen if a training crop lies near what was copied. A few random crops of many slides leave most of the tissue
out, and verbatim copies of it would pass; so the training side is drawn on a lattice of half a crop, on which every place
has a crop within a quarter of a side along both axes (56 % common area at least).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError, WsigenError
from wsigen.base.geometry import Box
from wsigen.evaluation.sides.members import PackedMask
from wsigen.evaluation.sides.sides import Crop, Side

TISSUE_SHARE = 0.5
"""Share of a crop that must be tissue."""

LATTICE_SHARE = 1 / 16
"""Tissue of a crop of the lattice: one that is half tissue shares 9/16 of its area with its nearest crop of the lattice, of
which 1/2 - 7/16 are tissue in the worst case."""

_TRIES = 60
"""Places tried per crop asked for, before fewer are returned."""


def place_crops(side: Side, count: int, side_px: int, mpp: float | None, seed: int) -> list[Crop]:
    """Draw places of square crops from tissue, each at most once.

    An image is chosen by the area of its tissue, then a pixel of its tissue as the centre; at least half of a crop is
    tissue. The same seed gives the same crops, whatever else is evaluated.

    Parameters
    ----------
    side_px : int
        Side of a crop at ``mpp`` (px).

    Returns
    -------
    list of Crop
        ``count`` of them, or fewer where the side has no more.

    Raises
    ------
    EvaluationError
        If no image has tissue, or all are smaller than a crop.
    """
    fields = [places_of(side, i, side_px, mpp) for i in range(len(side.members))]
    weights = np.array([f.tissue_px if f is not None else 0 for f in fields], dtype=np.float64)
    if not weights.any():
        small = sum(f is None for f in fields)
        why = f"{small} are unreadable or below {side_px} px" if small else "none shows tissue"
        raise EvaluationError(f"{side.path}: no crop can be taken from its {len(fields)} images ({why})")
    rng = np.random.default_rng([seed, *hashlib.sha256(side.name.encode()).digest()[:4]])
    drawn: dict[tuple[int, Box], None] = {}
    for _ in range(_TRIES * count):
        if len(drawn) == count or not weights.any():
            break
        member = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
        chosen = fields[member]
        assert chosen is not None  # its weight would be 0
        box = chosen.draw(rng)
        if box is not None:
            drawn[(member, box)] = None
        if chosen.single:
            weights[member] = 0
    crops = [Crop(m, box, side.canvas(m, mpp)) for m, box in sorted(drawn)]
    return [replace(crop, class_name=side.class_of(crop)) for crop in crops]


def places_of(side: Side, index: int, side_px: int, mpp: float | None) -> Field | None:
    """Return where crops may lie on a member; None (and a note) if it is too small or damaged."""
    member, canvas = side.members[index], side.canvas(index, mpp)
    try:
        if min(canvas) < side_px:
            raise EvaluationError(f"{member.path}: {canvas[1]} x {canvas[0]} px, smaller than a crop of {side_px} px")
        return Field(side.tissue(index), canvas, side_px)
    except WsigenError as error:
        side.skip(member.path, str(error))
        return None


def place_training(side: Side, most: int, least: int, side_px: int, mpp: float | None, seed: int) -> list[Crop]:
    """Place crops of ``side_px`` every half crop over the tissue of a side, or a random ``most`` of these places.

    Parameters
    ----------
    most, least : int
        Crops; a side whose lattice has fewer than ``least`` gets as many random ones (`place_crops`).

    Memory bound: ``most`` places and those of one image.

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
    return [Crop(i, Box(y, x, y + side_px, x + side_px), side.canvas(i, mpp)) for i, y, x in ordered]


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


class Field:
    """Places for crops of one size.

    Memory bound: one number a row of the mask beside its bits; a side holds the fields of all its slides.

    Parameters
    ----------
    mask : PackedMask
        Tissue on a small view of the image.
    canvas : tuple of int
        ``(height, width)`` of the image at the evaluation's um/px (px).
    side_px : int
        Side of a crop, at most the canvas (px).
    """

    def __init__(self, mask: PackedMask, canvas: tuple[int, int], side_px: int) -> None:
        self.mask, self.canvas, self.side_px = mask, canvas, side_px
        self.single = canvas == (side_px, side_px)

    @property
    def cell_px(self) -> float:
        """Area of a cell of the mask in px of the canvas: images have cells of different sizes."""
        return self.canvas[0] * self.canvas[1] / (self.mask.shape[0] * self.mask.shape[1])

    @property
    def tissue_px(self) -> float:
        """Area of the tissue in px of the canvas."""
        return self.mask.count * self.cell_px

    def draw(self, rng: np.random.Generator) -> Box | None:
        """One place, or None if that is not half tissue."""
        rows, columns = self.mask.shape
        row, column = self._cell(int(rng.integers(self.mask.count)))
        y = (row + rng.random()) * self.canvas[0] / rows
        x = (column + rng.random()) * self.canvas[1] / columns
        y0 = min(max(round(y - self.side_px / 2), 0), self.canvas[0] - self.side_px)
        x0 = min(max(round(x - self.side_px / 2), 0), self.canvas[1] - self.side_px)
        box = Box(y0, x0, y0 + self.side_px, x0 + self.side_px)
        return box if self.tissue_at(y0, np.array([x0]))[0] else None

    def _cell(self, k: int) -> tuple[int, int]:
        """Row and column of the ``k``-th cell of tissue in row-major order."""
        row = int(np.searchsorted(self._counted, k, side="right"))
        before = int(self._counted[row - 1]) if row else 0
        return row, int(np.flatnonzero(self.mask.rows(row, row + 1)[0])[k - before])

    @cached_property
    def _counted(self) -> NDArray[np.int64]:
        """Cells of tissue up to the end of every row."""
        return np.cumsum([int(self.mask.rows(y, y + 1).sum()) for y in range(self.mask.shape[0])])

    def tissue_at(self, y0: int, x0s: NDArray[np.int64], share: float = TISSUE_SHARE) -> NDArray[np.bool_]:
        """Whether crops that begin in row ``y0`` at each of ``x0s`` show tissue on so large a share, bool ``(len(x0s),)``."""
        rows, columns = (n / c for n, c in zip(self.mask.shape, self.canvas, strict=True))
        top = int(y0 * rows)
        bottom = max(top + 1, round((y0 + self.side_px) * rows))
        left = (x0s * columns).astype(np.int64)
        right = np.maximum(left + 1, np.rint((x0s + self.side_px) * columns).astype(np.int64))
        counted = np.concatenate([[0], np.cumsum(self.mask.rows(top, bottom).sum(axis=0))])
        return np.asarray(counted[right] - counted[left] >= share * (bottom - top) * (right - left), dtype=bool)

    def lattice(self, stride_px: int, share: float) -> NDArray[np.int64]:
        """Corners (y0, x0) of the crops every ``stride_px`` and at the far edges that show so much tissue, int64 ``(n, 2)``."""
        ys, xs = (np.unique([*range(0, c - self.side_px, stride_px), c - self.side_px]) for c in self.canvas)
        kept = [xs[self.tissue_at(int(y), xs, share)] for y in ys]
        rows = np.repeat(ys, [len(k) for k in kept])
        return np.stack([rows, np.concatenate(kept)], axis=1).astype(np.int64)

    def near(self, boxes: Iterable[Box]) -> tuple[int, int]:
        """Count the places where a crop can lie, and those that one of ``boxes`` is near: a quarter of a side off at most.

        A place is a cell of tissue whose crop is half tissue.
        """
        ys, xs = (self._starts(axis) for axis in (0, 1))
        reached = np.zeros(self.mask.shape, bool)
        for box in boxes:
            reached[self._within(ys, box.y0), self._within(xs, box.x0)] = True
        places = near = 0
        for row, y in enumerate(ys):
            here = self.mask.rows(row, row + 1)[0] & self.tissue_at(int(y), xs)
            places, near = places + int(here.sum()), near + int((here & reached[row]).sum())
        return places, near

    def _starts(self, axis: int) -> NDArray[np.int64]:
        """Where the crops centred on each row (or column) of cells begin (px), as ``draw`` moves them onto the canvas."""
        cells, size = self.mask.shape[axis], self.canvas[axis]
        centres = (np.arange(cells) + 0.5) * size / cells
        return np.clip(np.rint(centres - self.side_px / 2), 0, size - self.side_px).astype(np.int64)

    def _within(self, starts: NDArray[np.int64], at: int) -> slice:
        reach = self.side_px / 4
        return slice(int(np.searchsorted(starts, at - reach)), int(np.searchsorted(starts, at + reach, side="right")))
