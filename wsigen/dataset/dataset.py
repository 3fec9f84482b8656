"""`open_dataset`: from a dataset's file to its images, splits, patches and streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.errors import DatasetError
from wsigen.dataset.crops import CropStream, ReadFailures
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.groups import HELD_OUT, SPLITS, TRAINING, group_images, split_groups
from wsigen.dataset.images import ImageFile, find_images
from wsigen.dataset.index import Watch, build_index, index_key, load_index, save_index
from wsigen.dataset.label_sources import label_images
from wsigen.dataset.labels import Labels, PolygonLabels
from wsigen.dataset.mask_labels import MaskLabels
from wsigen.dataset.members import Member
from wsigen.dataset.patches import Patches
from wsigen.dataset.settings import (
    CELL_PX,
    DatasetSettings,
    MaskSource,
    PointSource,
    TileSource,
    UnlabelledSource,
    cache_of,
    read_settings,
)
from wsigen.dataset.tables import column_of_images, few, folder_of
from wsigen.models.card import Level
from wsigen.slide.info import told
from wsigen.slide.reading import ImageSource
from wsigen.slide.tissue import Mask

MOST_NOTES = 20
"""Notes on labels that a summary lists."""

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
    skip_bad : whether places that cannot be read are passed over, too (`crops.ReadFailures`)
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
        return self.settings.mpps

    @property
    def cells_of_patch(self) -> int:
        """Cells of 8 x 8 px of a patch."""
        return (self.settings.patch_px // CELL_PX) ** 2

    @property
    def training(self) -> list[Member]:
        """Images to train on."""
        return [m for m in self.members if m.group not in self.held_out_groups]

    @property
    def held_out(self) -> list[Member]:
        """Images training never sees."""
        return [m for m in self.members if m.group in self.held_out_groups]

    @property
    def sides(self) -> NDArray[np.int64]:
        """Each member's split, `groups.TRAINING` or `groups.HELD_OUT`."""
        return np.array([m.group in self.held_out_groups for m in self.members], np.int64)

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

    def drawer(
        self,
        split: Split,
        level_shares: Sequence[float] | None = None,
        unlabelled_share: float | None = None,
        most_frequent: bool = False,
    ) -> Drawer:
        """Return what draws the patches of a split; see `Drawer`."""
        drawn = (self.cells_of_patch, len(self.levels), level_shares, unlabelled_share, most_frequent)
        return Drawer(self.split_patches(split), *drawn)

    def crops(
        self,
        split: Split,
        side_px: int,
        seed: int,
        level_shares: Sequence[float] | None = None,
        *,
        unlabelled_share: float | None = None,
        augment: bool = True,
        cell_px: int = CELL_PX,
    ) -> CropStream:
        """Return a stream of random crops of ``side_px`` px, a multiple of 8 not above ``patch_px``; see `Drawer`.

        Their class maps have cells of ``cell_px`` px, of which ``side_px`` is a multiple, too.

        Raises
        ------
        DatasetError
            If the side does not fit, or the split cannot give what the shares ask for.
        """
        patch = self.settings.patch_px
        step = math.lcm(CELL_PX, cell_px)
        if side_px % step or not step <= side_px <= patch:
            raise DatasetError(f"crops of {side_px} px: give a multiple of {step} up to the dataset's patch_px {patch}")
        patches, drawer = self.split_patches(split), self.drawer(split, level_shares, unlabelled_share)
        failures = ReadFailures(self.skip_bad)
        return CropStream(self.members, patches, drawer, self.mpps, patch, side_px, seed, augment, failures, cell_px)


def open_dataset(
    source: str | Path | DatasetSettings,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    watch: Watch | None = None,
) -> Dataset:
    """Check a dataset and open it; its index is built once and kept.

    Parameters
    ----------
    source : str, Path or DatasetSettings
        The dataset's YAML file, or what it holds.
    cache : str or Path, optional
        Folder of the index and of tiled copies; ``FILE.cache`` beside the file by default.
    skip_bad : bool
        Leave out images that cannot be opened (they are counted) instead of stopping, and pass over places of others that
        cannot be read when crops are drawn (`crops.ReadFailures`).
    watch : callable, optional
        Called for each image while the index is built.

    Raises
    ------
    DatasetError
        One line: what is wrong with which image, table or setting, and what to do.
    """
    if isinstance(source, DatasetSettings):
        settings = source
    else:
        settings, cache = read_settings(source), cache or cache_of(source)
    if cache is None:
        raise DatasetError("settings without a file need a 'cache': the folder of the index")
    path = Path(cache) / "index.npz"
    files = find_images(settings)
    groups = group_images(settings, files)
    held_out = split_groups(settings, groups)
    labels, notes = label_images(settings, files, Path(cache))
    subtypes = _subtypes(settings, files)

    def make_member(file: ImageFile, image: ImageSource, mask: Mask | None) -> Member:
        name, glass = file.name, getattr(settings.sources[file.source], "glass", False)
        outside = settings.table.background if glass else None
        return Member(name, file.path, image, labels[name], settings.table, mask, outside, groups[name], subtypes.get(name))

    stamped = _files(settings, files, labels)
    key, strict = (index_key(settings, stamped, skip) for skip in (skip_bad, False))
    index = load_index(path, key, files, make_member) or load_index(path, strict, files, make_member)
    if index is None:
        index = build_index(settings, files, make_member, held_out, Path(cache), skip_bad, watch)
        save_index(path, index, key if index.skipped else strict)  # with nothing left out both are the same
    notes += told((m.name, note) for m in index.members for note in m.reference.notes)
    notes += [*_shortened(index.notes), *_coarse_images(settings, index.members)]
    key = key if index.skipped else strict
    return Dataset(settings, key, index.members, held_out, index.patches, index.areas, index.skipped, notes, skip_bad)


def _shortened(notes: Sequence[str]) -> list[str]:
    """The first notes of many files, and how many more there are."""
    more = len(notes) - MOST_NOTES
    return [*notes[:MOST_NOTES], *([f"{more} more notes on labels, like these"] if more > 0 else [])]


def _subtypes(settings: DatasetSettings, files: Sequence[ImageFile]) -> dict[str, str]:
    s = settings.subtypes
    if s is None:
        return {}
    of = [(f.name, settings.sources[f.source]) for f in files]
    slides = [name for name, source in of if not isinstance(source, TileSource)]
    labelled = [name for name, source in of if not isinstance(source, TileSource | UnlabelledSource)]
    return column_of_images(settings.root / s.csv, s.image, s.subtype, slides, labelled, folder_of(s.csv))


def _files(settings: DatasetSettings, files: Sequence[ImageFile], labels: dict[str, Labels]) -> list[Path]:
    """Every file that decides what the dataset holds."""
    tables = [s.csv for s in settings.sources if isinstance(s, PointSource)]
    tables += [part.csv for part in (settings.groups, settings.subtypes) if part is not None and part.csv is not None]
    tables += [s.values for s in settings.sources if isinstance(s, MaskSource) and isinstance(s.values, str)]
    annotations = [of_image.path for of_image in labels.values() if isinstance(of_image, PolygonLabels | MaskLabels)]
    return [f.path for f in files] + [settings.root / t for t in tables] + annotations


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
