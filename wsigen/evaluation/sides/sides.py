"""A side of an evaluation: its images with their tissue and classes, and the um/px at which sides are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import EvaluationError, WsigenError
from wsigen.base.geometry import Box
from wsigen.dataset.labels import WholeLabel
from wsigen.dataset.members import Member
from wsigen.evaluation.sides.members import Indexing, PackedMask, Skipped, find_members, named_dataset, open_members
from wsigen.layout.class_names import WrittenClasses
from wsigen.layout.layout import Layout
from wsigen.slide.info import told
from wsigen.slide.tissue import find_tissue
from wsigen.storage.files import sha256

SAME_MPP = 0.03
"""um/px that differ by less are the same: scanners of one kind differ by a percent."""

MOST_ENLARGED = 2.0
"""Times an image may be enlarged; beyond that features tell of the interpolation."""

MAJORITY = 0.5
"""A crop has the class that covers more than this share of it."""

_CELLS = 16
"""A crop is looked at on so many cells a side."""

_TILE_CELLS = 64
"""Cells a side of the mask of a tile, which is tissue everywhere."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop: the image it is from, its place on that image at the evaluation's um/px, its class or None."""

    member: int
    box: Box
    canvas: tuple[int, int]
    class_name: str | None = None


@dataclass(frozen=True)
class Side:
    """The readable images of one side.

    Attributes
    ----------
    name : str
        ``real``, ``synthetic``, ``training``: for messages.
    path : Path
        As given.
    members : list of Member
        In the order of their paths; their um/px is that of ``reference``, None where nobody knows.
    skipped : list of Skipped
        What could not be read; `skip` adds what turns out to be damaged.
    level_mpp : float or None
        um/px of a dataset's finest level; it goes before that of its images.
    unlabelled : dict
        Why the annotations of a member cannot be used, by its position; `layout` adds to it.
    names : WrittenClasses
        Which class a written name stands for, where no dataset says it.
    left_out : Counter
        How many tiles ``names`` leaves out, by their folder.
    exact : bool
        Whether images are resampled to the um/px compared at though theirs is the same (`SAME_MPP`): somebody asked for it.
    """

    name: str
    path: Path
    members: list[Member]
    skipped: list[Skipped] = field(default_factory=list)
    level_mpp: float | None = None
    unlabelled: dict[int, str] = field(default_factory=dict)
    names: WrittenClasses = field(default_factory=WrittenClasses)
    left_out: Counter[str] = field(default_factory=Counter)
    exact: bool = False
    _tissue: dict[int, PackedMask] = field(default_factory=dict)

    def canvas(self, index: int, mpp: float | None) -> tuple[int, int]:
        """``(height, width)`` of a whole image at ``mpp``; as it is for None, and where its um/px are the same.

        Resampling by a percent blurs: it would tell the side whose images have just the um/px compared at from any other.
        """
        member = self.members[index]
        image = member.reference
        if mpp is None or image.mpp is None:
            return image.height, image.width
        same = all(max(v, mpp) <= min(v, mpp) * (1 + SAME_MPP) for v in (image.mpp, image.mpp * image.aspect))
        return (image.height, image.width) if same and not self.exact else member.canvas(mpp)

    def tissue(self, index: int) -> PackedMask:
        """Where tissue lies on a member, on a view of about 8 um/px; everywhere on a tile that somebody gave a class."""
        if index not in self._tissue:
            member = self.members[index]
            mask, image = member.mask, member.reference
            if mask is None and isinstance(member.labels, WholeLabel) and member.labels.any:
                mask = np.ones((min(image.height, _TILE_CELLS), min(image.width, _TILE_CELLS)), bool)
            self._tissue[index] = PackedMask.of(find_tissue(image, image.mpp) if mask is None else mask)
        return self._tissue[index]

    @property
    def bare(self) -> int:
        """How many of the images looked at so far show no tissue."""
        return sum(not mask.count for mask in self._tissue.values())

    def read(self, crop: Crop) -> NDArray[np.uint8]:
        """Return the pixels of a crop, uint8 ``(P, P, 3)`` RGB."""
        return self.members[crop.member].reference.region(crop.box, crop.canvas)

    def full_size(self, crop: Crop) -> Box:
        """Where a crop lies in px of the full resolution."""
        image = self.members[crop.member].reference
        return _resized(crop, (image.height, image.width))

    def layout(self, index: int) -> Layout | None:
        """Classes drawn on a member, in px of the full resolution; None (and a note) if what is drawn cannot be used, too."""
        member = self.members[index]
        if index in self.unlabelled or isinstance(member.labels, WholeLabel):
            return None
        try:
            return member.layout(member.mpp)
        except WsigenError as error:
            self.unlabelled[index] = f"{error}; the image counts as unlabelled"
            return None

    def shares(self, crop: Crop) -> Mapping[str, float]:
        """Share of a crop that each drawn class covers; what nobody labelled is left out."""
        layout, table = self.layout(crop.member), self.members[crop.member].table
        if layout is None:
            return {}
        box = _resized(crop, (layout.height, layout.width))
        cell = max(1, min(box.height, box.width) // _CELLS)
        cells = Box(box.y0 // cell, box.x0 // cell, -(-box.y1 // cell), -(-box.x1 // cell))
        classes = layout.class_map(cells, cell)
        counts = np.bincount(classes.ravel(), minlength=len(table))[: len(table)] / classes.size
        return {c.name: float(n) for c, n in zip(table, counts, strict=True) if n}

    def class_of(self, crop: Crop) -> str | None:
        """The class of its whole image (a tile), or that which is drawn on more than half of a crop, or None."""
        labels, table = self.members[crop.member].labels, self.members[crop.member].table
        if isinstance(labels, WholeLabel):
            return table[labels.class_index].name if labels.any else None
        return next((name for name, share in self.shares(crop).items() if share > MAJORITY), None)

    def mask(self, crop: Crop, names: Sequence[str]) -> NDArray[np.uint8]:
        """Classes of every pixel of a crop.

        Returns
        -------
        uint8 ``(P, P)``
            Positions in ``names`` (case aside) or `classes.UNKNOWN`; half a pixel off at most.
        """
        layout, box = self.layout(crop.member), crop.box
        if layout is None:
            return np.full(box.shape, UNKNOWN, np.uint8)
        scales = layout.height / crop.canvas[0], layout.width / crop.canvas[1]
        cell = max(1, int(min(scales)))
        spans = (box.y0, box.y1), (box.x0, box.x1)
        rows, columns = (
            ((np.arange(*span) + 0.5) * scale / cell).astype(np.int64) for span, scale in zip(spans, scales, strict=True)
        )
        cells = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        classes = layout.class_map(cells, cell)[np.ix_(rows - cells.y0, columns - cells.x0)]
        positions = np.full(UNKNOWN + 1, UNKNOWN, np.uint8)
        folded = [n.casefold() for n in names]
        for index, tissue in enumerate(self.members[crop.member].table):
            if tissue.name.casefold() in folded:
                positions[index] = folded.index(tissue.name.casefold())
        return positions[classes]

    def skip(self, path: Path, reason: str) -> None:
        """Note a file that turned out to be unusable; only its first reason is kept."""
        if str(path) not in self.skipped_paths:
            self.skipped_paths.add(str(path))
            self.skipped.append(Skipped(str(path), reason))

    @cached_property
    def skipped_paths(self) -> set[str]:
        """Paths of what was skipped."""
        return {s.path for s in self.skipped}

    @property
    def mpp(self) -> float | None:
        """um/px of the finest member (of a dataset's finest level), None if no member says any.

        Raises
        ------
        EvaluationError
            If members differ.
        """
        if self.level_mpp is not None:
            return self.level_mpp
        values = sorted(m.reference.mpp for m in self.members if m.reference.mpp is not None)
        if not values:
            return None
        if values[-1] > values[0] * (1 + SAME_MPP):
            raise EvaluationError(
                f"{self.path}: its images have {values[0]:g} to {values[-1]:g} um/px; say at which to compare with --mpp"
            )
        return values[0]


def _resized(crop: Crop, size: tuple[int, int]) -> Box:
    """Where a crop lies on the image resized to ``(height, width)``."""
    y, x = (side / canvas for side, canvas in zip(size, crop.canvas, strict=True))
    box = crop.box
    return Box(round(box.y0 * y), round(box.x0 * x), round(box.y1 * y), round(box.x1 * x))


def open_side(
    name: str,
    path: Path,
    stated_mpp: float | None = None,
    watch: Indexing | None = None,
    names: WrittenClasses | None = None,
    exact: bool = False,
) -> Side:
    """Open a slide, a folder of slides, a folder of tiles or a dataset; unreadable files are kept in ``skipped``.

    Parameters
    ----------
    path : Path
        A dataset is its YAML file: its held-out images. ``FILE.yaml#training`` and ``FILE.yaml#all`` mean the others.
    names : WrittenClasses, optional
        Renames classes of files and folders; a dataset renames its own.
    exact : bool
        As of `Side`.

    Raises
    ------
    EvaluationError
        If nothing can be read.
    DatasetError
        If the dataset cannot be used as its file describes it.
    """
    dataset = named_dataset(path)
    if dataset is None:
        names = names or WrittenClasses()
        members, skipped, unlabelled, left_out = find_members(path, stated_mpp, names)
        return Side(name, path, members, skipped, unlabelled=unlabelled, names=names, left_out=left_out, exact=exact)
    if stated_mpp is not None:
        raise EvaluationError(f"{path}: a dataset says its own um/px; leave out --{name}-mpp, or mend 'mpp' in its sources")
    return Side(name, path, *open_members(*dataset, watch), exact=exact)


def image_notes(sides: Iterable[Side]) -> list[str]:
    """Say what is not as one would expect of the images, a line for each thing."""
    sides = list(sides)
    left_out = [
        f"{side.path / folder}: {count} tile{'s' * (count > 1)} left out, as --layout-names says"
        for side in sides
        for folder, count in side.left_out.items()
    ]
    return left_out + told((m.name, note) for side in sides for m in side.members for note in m.reference.notes)


def without_tissue(sides: Iterable[Side]) -> list[str]:
    """Say how many images of each side were not compared as they show no tissue; crops were placed before."""
    counted = [(side, f"{side.bare} of {len(side.members)} images") for side in sides if side.bare]
    return [f"{side.path}: {count} show no tissue and were not compared" for side, count in counted]


def unused_names(names: WrittenClasses) -> list[str]:
    """Say which renamed classes no side has."""
    listed = ", ".join(map(repr, names.unused))
    return [f"nothing is of class {listed}, which --layout-names speaks of"] if listed else []


def common_mpp(sides: list[Side], asked: float | None) -> float | None:
    """The um/px at which sides are compared; None: no image says any, and pixels are compared as they are.

    Raises
    ------
    EvaluationError
        If images differ and nobody said at which to compare, or one does not say its own.
    """
    silent = [s for s in sides if any(m.reference.mpp is None for m in s.members)]
    if asked is not None:
        if silent:
            raise EvaluationError(_silent(silent[0], f"cannot be brought to {asked:g} um/px"))
        return asked
    values = [v for v in (s.mpp for s in sides) if v is not None]
    if not values:
        return None
    if silent:
        raise EvaluationError(_silent(silent[0], "cannot be compared with images that say theirs"))
    if max(values) > min(values) * (1 + SAME_MPP):
        stated = ", ".join(f"{s.name} {v:g}" for s, v in zip(sides, values, strict=True))
        raise EvaluationError(f"the sides have different um/px ({stated}); say at which to compare, e.g. --mpp {max(values):g}")
    return values[0]


def enlarged(sides: list[Side], mpp: float | None) -> list[str]:
    """Say which sides hold images coarser than the um/px they are compared at: enlarged pictures lack detail.

    Raises
    ------
    EvaluationError
        If an image would be enlarged more than `MOST_ENLARGED` times.
    """
    if mpp is None:
        return []
    coarsest, path = max((m.reference.mpp or 0.0, m.path) for s in sides for m in s.members)
    if coarsest > MOST_ENLARGED * mpp:
        raise EvaluationError(
            f"{path}: {coarsest:g} um/px would be enlarged {coarsest / mpp:.3g} times to {mpp:g}, which shows no more "
            f"of the tissue; compare at a coarser --mpp, e.g. --mpp {coarsest:g}"
        )
    notes = []
    for side in sides:
        known = [m.reference.mpp for m in side.members if m.reference.mpp]
        coarse = [v for v in known if v > mpp * (1 + SAME_MPP)]
        if coarse:
            notes.append(
                f"{side.name}: {len(coarse)} of {len(side.members)} images are coarser than the {mpp:g} um/px compared at (up "
                f"to {max(coarse):g}) and were enlarged: they lack detail, which numbers take for a difference; see --mpp"
            )
    return notes


def same_files(sides: dict[str, Side]) -> list[str]:
    """Say which files two sides share by content: comparing them says nothing."""
    notes, names = [], list(sides)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            count = shared_files(sides[a], sides[b])
            if count:
                total = len(sides[b].members)
                notes.append(f"{a} and {b} are the same in {count} of {total} files: numbers compare them with themselves")
    return notes


def shared_files(a: Side, b: Side) -> int:
    """Count files of ``b`` whose bytes are a file of ``a``; only files of equal size are read."""
    sizes = {m.path.stat().st_size for m in a.members} & {m.path.stat().st_size for m in b.members}
    known = {sha256(m.path) for m in a.members if m.path.stat().st_size in sizes}
    return sum(m.path.stat().st_size in sizes and sha256(m.path) in known for m in b.members)


def _silent(side: Side, problem: str) -> str:
    file = next(m.path for m in side.members if m.reference.mpp is None)
    return f"{file}: does not say its um/px and {problem}; say it with --{side.name}-mpp"
