"""`Drawer`: which patch comes next, balanced over levels and classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DatasetError
from wsigen.dataset.patches import Patches

PRESENT = 1 / 64
"""Share of a patch a class must cover to be drawn for it, unless it covers so much in no patch."""

MOST = 0.5
"""Least share of a patch that must be known as one class for the patch to be of that class, where one class is told of it."""

Rows = NDArray[np.int64]


class Drawer:
    """Draws rows of a table of patches.

    Parameters
    ----------
    patches : Patches
        Only those that may be drawn.
    cells : int
        Cells of a patch.
    level_shares : sequence of float, optional
        Share of every level; by default equal shares of the levels that have patches.
    unlabelled_share : float, optional
        Share of patches that are drawn for no class (DiffInfinite's p_unc: 0.5): those without any label, and those with too
        little of every class (`little_labelled`). By default as many as there are.
    most_frequent : bool
        Draw a patch for the class that fills half of it (`MOST`) alone, as a model that is told one class of a patch must,
        and a patch without such a class as an unlabelled one; by default for any class that is present in it.

    Raises
    ------
    DatasetError
        If there are no patches, or a share asks for what is not there.
    """

    def __init__(
        self,
        patches: Patches,
        cells: int,
        levels: int,
        level_shares: Sequence[float] | None = None,
        unlabelled_share: float | None = None,
        most_frequent: bool = False,
    ) -> None:
        if not len(patches):
            raise DatasetError("no patches in this split; hold out other groups, or lower min_tissue in the dataset's file")
        self._by_class: list[dict[int, Rows]] = []
        self._unlabelled: list[Rows] = []
        self._natural: list[float] = []
        for level in range(levels):
            rows = np.flatnonzero(patches.level == level)
            counts = patches.counts[rows]
            of_level = _most(rows, counts, cells * MOST) if most_frequent else _present(rows, counts, cells)
            self._by_class.append(of_level)
            self._unlabelled.append(rows[~np.isin(rows, _all_of(of_level))])
            self._natural.append(len(self._unlabelled[-1]) / max(1, len(rows)))
        self._shares = self._level_shares(level_shares)
        self._unlabelled_share = unlabelled_share
        for used in np.flatnonzero(self._shares):
            self._check_kinds(int(used))

    @property
    def drawn(self) -> list[set[int]]:
        """Classes that patches are drawn for, level by level."""
        return [set(classes) if share else set() for classes, share in zip(self._by_class, self._shares, strict=True)]

    def draw(self, rng: np.random.Generator) -> tuple[int, int | None]:
        """Draw a row and the class it was drawn for, None for an unlabelled one."""
        level = int(rng.choice(len(self._shares), p=self._shares))
        unlabelled, by_class = self._unlabelled[level], self._by_class[level]
        share = self._natural[level] if self._unlabelled_share is None else self._unlabelled_share
        if not by_class or (len(unlabelled) and rng.random() < share):
            return int(unlabelled[rng.integers(len(unlabelled))]), None
        label = list(by_class)[int(rng.integers(len(by_class)))]
        rows = by_class[label]
        return int(rows[rng.integers(len(rows))]), label

    def _level_shares(self, shares: Sequence[float] | None) -> NDArray[np.float64]:
        there = np.array([bool(c) or len(u) > 0 for c, u in zip(self._by_class, self._unlabelled, strict=True)])
        if shares is None:
            return there / there.sum()
        given = np.asarray(shares, np.float64)
        if given.shape != there.shape or (given < 0).any() or not given.sum() > 0:
            raise DatasetError(f"level_shares {list(shares)}: give {len(there)} numbers, one for each level, none negative")
        missing = np.flatnonzero((given > 0) & ~there)
        if len(missing):
            raise DatasetError(f"level {missing[0]} has a share and no patches; set its share to 0 or add larger images")
        return given / given.sum()

    def _check_kinds(self, level: int) -> None:
        share = self._unlabelled_share
        if share and not len(self._unlabelled[level]):
            raise DatasetError(f"unlabelled_share {share}: level {level} has no unlabelled patches; set it to 0 or add slides")
        if share is not None and share < 1 and not self._by_class[level]:
            raise DatasetError(f"unlabelled_share {share}: level {level} has no labelled patches; set it to 1 or add labels")


def _most(rows: Rows, counts: NDArray[np.int32], least: float) -> dict[int, Rows]:
    """Rows by the class of at least ``least`` cells, the lowest of equals, as `training.conditions.crop_labels` has it."""
    labels = np.where((counts >= least).any(axis=1), counts.argmax(axis=1) if counts.shape[1] else 0, -1)
    return {int(label): rows[labels == label] for label in np.unique(labels[labels >= 0])}


def little_labelled(counts: NDArray[np.int32], cells: int) -> NDArray[np.bool_]:
    """Which patches have a label and are drawn for no class: `PRESENT` of none, where others of their class have it.

    Parameters
    ----------
    counts : int32 [n, classes]
        Of all patches of one level and split, as in `Patches`.
    cells : int
        Cells of a patch.

    Returns
    -------
    bool [n]
    """
    rows = np.arange(len(counts))
    return counts.any(axis=1) & ~np.isin(rows, _all_of(_present(rows, counts, cells)))


def _all_of(by_class: dict[int, Rows]) -> Rows:
    return np.concatenate([np.zeros(0, np.int64), *by_class.values()])


def _present(rows: Rows, counts: NDArray[np.int32], cells: int) -> dict[int, Rows]:
    """Rows by every class that covers `PRESENT` of them, or by any of it, if it covers so much of none."""
    least, by_class = max(1.0, cells * PRESENT), {}
    for label in np.flatnonzero(counts.any(axis=0)):
        enough = counts[:, label] >= least
        by_class[int(label)] = rows[enough if enough.any() else counts[:, label] > 0]
    return by_class
