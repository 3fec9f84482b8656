"""`open_dataset`: from the dataset's settings to its images, splits, patches and streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.errors import DatasetError
from wsigen.dataset.batch import CELL_PX, CropStream
from wsigen.dataset.build import Watch, build_index, label_images, make_member
from wsigen.dataset.crops import PixelCrops
from wsigen.dataset.damage import Damage
from wsigen.dataset.discovery import Found, find_images
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.groups import HELD_OUT, SPLITS, TRAINING, group_images, split_groups
from wsigen.dataset.index import Index, index_key, index_path, load_index, save_index
from wsigen.dataset.labels import Labels, PolygonLabels
from wsigen.dataset.members import Member
from wsigen.dataset.patches import Patches
from wsigen.dataset.settings import DatasetSettings, PointSource, TileSource, UnlabelledSource
from wsigen.dataset.tables import column_of_images, few
from wsigen.models.card import Level

Split = Literal["training", "held_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A dataset, checked and indexed.

    Attributes
    ----------
    settings : what it was made from
    key : hash of the settings and of every file's size and time of change
    members : every image that could be opened
    held_out_groups : groups that training never sees
    patches : patches of all members on all levels
    areas : int64 [members, levels, classes + 1], cells of 8 x 8 px of each class, and of tissue without label
    skipped : (name, reason) of images left out by ``skip_bad``
    notes : what a person should know, a line each
    skip_bad : whether places that cannot be read are passed over, too (`damage`)
    """

    settings: DatasetSettings
    key: str
    members: list[Member]
    held_out_groups: frozenset[str]
    patches: Patches
    areas: NDArray[np.int64]
    skipped: list[tuple[str, str]]
    notes: list[str]
    skip_bad: bool = False

    @property
    def table(self) -> ClassTable:
        """The classes."""
        return self.settings.table

    @property
    def levels(self) -> tuple[Level, ...]:
        """The magnifications, finest first."""
        return self.settings.levels

    @property
    def mpps(self) -> list[float]:
        """The um/px of the levels."""
        return [float(level.mpp or 0) for level in self.levels]

    @property
    def training(self) -> list[Member]:
        """Images to train on."""
        return [m for m in self.members if m.group not in self.held_out_groups]

    @property
    def held_out(self) -> list[Member]:
        """Images training never sees."""
        return [m for m in self.members if m.group in self.held_out_groups]

    def split_patches(self, split: Split) -> Patches:
        """The patches of one split.

        Raises
        ------
        DatasetError
            If there is no such split.
        """
        if split not in SPLITS:
            raise DatasetError(f"no split {split!r}; there are {' and '.join(SPLITS)}")
        side = HELD_OUT if split == "held_out" else TRAINING
        return self.patches.take(self.sides[self.patches.member] == side)

    @property
    def sides(self) -> NDArray[np.int64]:
        """Each member's split, `groups.TRAINING` or `groups.HELD_OUT`."""
        return np.array([m.group in self.held_out_groups for m in self.members], np.int64)

    def drawer(
        self,
        split: Split,
        level_shares: Sequence[float] | None = None,
        unlabelled_share: float | None = None,
        most_frequent: bool = False,
    ) -> Drawer:
        """Return what draws the patches of a split; see `Drawer`."""
        cells = (self.settings.patch_px // CELL_PX) ** 2
        return Drawer(self.split_patches(split), cells, len(self.levels), level_shares, unlabelled_share, most_frequent)

    def crops(
        self,
        split: Split,
        side_px: int,
        seed: int,
        level_shares: Sequence[float] | None = None,
        *,
        unlabelled_share: float | None = None,
        augment: bool = True,
    ) -> CropStream:
        """Return a stream of random crops of ``side_px`` px, a multiple of 8 not above ``patch_px``; see `Drawer`.

        Raises
        ------
        DatasetError
            If the side does not fit, or the split cannot give what the shares ask for.
        """
        patch = self.settings.patch_px
        if side_px % CELL_PX or not CELL_PX <= side_px <= patch:
            raise DatasetError(f"crops of {side_px} px: give a multiple of {CELL_PX} up to the dataset's patch_px {patch}")
        patches, drawer = self.split_patches(split), self.drawer(split, level_shares, unlabelled_share)
        damage = Damage(self.skip_bad)
        return PixelCrops(self.members, patches, drawer, self.mpps, patch, side_px, seed, augment, damage)


def open_dataset(
    settings: DatasetSettings, cache_dir: str | Path, skip_bad: bool = False, watch: Watch | None = None
) -> Dataset:
    """Check a dataset and open it; its index is built once and kept in ``cache_dir``.

    Parameters
    ----------
    skip_bad:
        Leave out images that cannot be opened (they are counted) instead of stopping, and pass over places of others that
        cannot be read when crops are drawn (`damage`).
    watch:
        Called for each image while the index is built.

    Raises
    ------
    DatasetError
        One line: what is wrong with which image, table or setting, and what to do.
    """
    cache = Path(cache_dir)
    found = find_images(settings)
    names = [f.name for f in found]
    groups = group_images(settings, names)
    held_out = split_groups(settings, groups)
    labels, notes = label_images(settings, found)
    subtypes: dict[str, str] = {}
    if settings.subtypes is not None:
        s = settings.subtypes
        of = [(f.name, settings.sources[f.source]) for f in found]
        slides = [name for name, source in of if not isinstance(source, TileSource)]
        labelled = [name for name, source in of if not isinstance(source, TileSource | UnlabelledSource)]
        subtypes = column_of_images(settings.root / s.csv, s.image, s.subtype, slides, labelled)
    files = _files(settings, found, labels)
    key, strict = (index_key(settings, files, skip) for skip in (skip_bad, False))
    index = load_index(index_path(cache), key) or load_index(index_path(cache), strict)
    if index is None:
        index = build_index(settings, found, labels, groups, held_out, cache, skip_bad, watch)
        save_index(index_path(cache), index, key if index.skipped else strict)  # with nothing left out both are the same
    members = _members(settings, found, index, labels, groups, subtypes)
    notes += _coarse_images(settings, members)
    key = key if index.skipped else strict
    found_out = (index.patches, index.areas, index.skipped, notes)
    return Dataset(settings, key, members, held_out, *found_out, skip_bad)


def _files(settings: DatasetSettings, found: Sequence[Found], labels: dict[str, Labels]) -> list[Path]:
    tables = [s.csv for s in settings.sources if isinstance(s, PointSource)]
    tables += [part.csv for part in (settings.groups, settings.subtypes) if part is not None and part.csv is not None]
    annotations = [said.path for said in labels.values() if isinstance(said, PolygonLabels)]
    return [f.path for f in found] + [settings.root / t for t in tables] + annotations


def _members(
    settings: DatasetSettings,
    found: Sequence[Found],
    index: Index,
    labels: dict[str, Labels],
    groups: dict[str, str],
    subtypes: dict[str, str],
) -> list[Member]:
    by_name = {f.name: f for f in found}
    rows = zip(index.names, index.opened, index.masks, strict=True)
    return [make_member(settings, by_name[n], o, labels[n], m, groups[n], subtypes.get(n)) for n, o, m in rows]


def _coarse_images(settings: DatasetSettings, members: Sequence[Member]) -> list[str]:
    """Say on which levels which images are left out, as they would have to be enlarged too much."""
    notes = []
    for level in settings.levels:
        coarse = [m for m in members if settings.too_coarse(m.mpp, level)]
        if coarse:
            notes.append(
                f"level {level.name!r} ({level.mpp} um/px): {len(coarse)} of {len(members)} images are left out there, as they "
                f"would be enlarged more than {settings.most_upsampling:g} times ({few([m.name for m in coarse])}; the first "
                f"has {coarse[0].mpp:g} um/px); raise most_upsampling to use them all the same"
            )
    return notes
