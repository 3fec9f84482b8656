"""`Patches`: the lattice of patches of every image and level, with the classes in them, as columns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.dataset.members import Member
from wsigen.dataset.settings import CELL_PX, DatasetSettings

NO_CLASS = -1
"""Owner of a patch without any label."""


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Patches, one a row.

    Attributes
    ----------
    member : int32 [n], position in the dataset's members
    level : int32 [n]
    y, x : int32 [n], corner in px of the level, multiples of 8
    counts : int32 [n, classes], cells of 8 x 8 px of each class; the rest is unknown
    """

    member: NDArray[np.int32]
    level: NDArray[np.int32]
    y: NDArray[np.int32]
    x: NDArray[np.int32]
    counts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.member)

    def box(self, row: int, side_px: int) -> Box:
        """The patch in px of its level."""
        y, x = int(self.y[row]), int(self.x[row])
        return Box(y, x, y + side_px, x + side_px)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Patches:
        """Return some rows."""
        return Patches(*(getattr(self, f.name)[rows] for f in fields(self)))

    @staticmethod
    def join(parts: list[Patches], classes: int) -> Patches:
        """Put patches one after the other."""
        none = np.zeros(0, np.int32)
        empty = Patches(none, none, none, none, np.zeros((0, classes), np.int32))
        parts = [empty, *parts]
        return Patches(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Patches)))


def starts(side: int, patch: int, overlap: int) -> list[int]:
    """Corners along a side (px), multiples of 8, the last one snapped to the edge; none if no patch fits."""
    last = (side - patch) // CELL_PX * CELL_PX
    if last < 0:
        return []
    return sorted({*range(0, last + 1, patch - overlap), last})


def lattice(member: Member, index: int, level: int, settings: DatasetSettings) -> tuple[Patches, NDArray[np.int64]]:
    """Return the patches of an image (the ``index``-th) at a level that have a label or enough tissue.

    Returns
    -------
    patches
    areas : int64 [classes + 1], cells of each class on the whole canvas, and of tissue without label
    """
    patch, classes, mpp = settings.patch_px, len(settings.classes), settings.mpps[level]
    rows, columns = (starts(side, patch, settings.overlap_px) for side in member.canvas(mpp))
    areas = np.zeros(classes + 1, np.int64)
    places: list[tuple[int, int]] = []
    counts: list[NDArray[np.int64]] = []
    if not rows or not columns:
        return Patches.join([], classes), areas
    for y, following in zip(rows, [*rows[1:], rows[-1] + patch], strict=True):
        strip = Box(y, 0, y + patch, columns[-1] + patch)
        labels, tissue = member.class_map(strip, mpp), member.tissue(strip, mpp)
        fresh = (following - y) // CELL_PX
        areas += _areas(labels[:fresh], tissue[:fresh], classes)
        for x in columns:
            part = slice(x // CELL_PX, (x + patch) // CELL_PX)
            of_patch = np.bincount(labels[:, part].ravel(), minlength=UNKNOWN + 1)[:classes]
            if of_patch.any() or tissue[:, part].mean() >= settings.min_tissue:
                places.append((y, x))
                counts.append(of_patch)
    n = len(places)
    ys, xs = np.array(places, np.int32).reshape(n, 2).T
    table = np.array(counts, np.int32).reshape(n, classes)
    return Patches(np.full(n, index, np.int32), np.full(n, level, np.int32), ys, xs, table), areas


def _areas(labels: NDArray[np.uint8], tissue: NDArray[np.bool_], classes: int) -> NDArray[np.int64]:
    known = np.bincount(labels.ravel(), minlength=UNKNOWN + 1)[:classes]
    return np.append(known, np.count_nonzero((labels == UNKNOWN) & tissue)).astype(np.int64)


def owners(patches: Patches, split: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each patch's class for counting: the rarest class in it (by cells on its level and in its split), or `NO_CLASS`.

    Parameters
    ----------
    split : int64 [n]
        Of each patch. Classes are counted in each alone, so that held-out labels decide nothing of training.

    Returns
    -------
    int64 [n]
    """
    out = np.full(len(patches), NO_CLASS, np.int64)
    for side, level in np.unique(np.stack([split, patches.level]), axis=1).T:
        rows = np.flatnonzero((split == side) & (patches.level == level))
        counts = patches.counts[rows]
        frequency = np.where(counts > 0, counts.sum(axis=0), np.iinfo(np.int64).max)
        labelled = counts.any(axis=1)
        out[rows[labelled]] = frequency[labelled].argmin(axis=1)
    return out


def thin(patches: Patches, names: list[str], sides: NDArray[np.int64], settings: DatasetSettings) -> Patches:
    """Keep at most ``most_per_class`` patches of a class on each level and in each split (``sides`` of every member).

    Which ones depends on a hash of (seed, image, level, place) alone, so that one more image moves few others.
    """
    keep = np.ones(len(patches), bool)
    split = sides[patches.member]
    owner = owners(patches, split)
    for combination in np.unique(np.stack([split, patches.level, owner]), axis=1).T:
        rows = np.flatnonzero((split == combination[0]) & (patches.level == combination[1]) & (owner == combination[2]))
        limit = settings.most_unlabelled if combination[2] == NO_CLASS else settings.most_per_class
        if limit is not None and len(rows) > limit:
            order = np.argsort([_rank(patches, int(r), names, settings.seed) for r in rows], kind="stable")
            keep[rows[order[limit:]]] = False
    return patches.take(keep)


def _rank(patches: Patches, row: int, names: list[str], seed: int) -> int:
    name = names[int(patches.member[row])]
    text = f"{seed}:{name}:{patches.level[row]}:{patches.y[row]}:{patches.x[row]}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
