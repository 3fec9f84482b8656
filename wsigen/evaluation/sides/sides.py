"""A side of an evaluation: its images, the um/px at which sides are compared, and the pixels of a crop of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError, WsigenError
from wsigen.base.geometry import Box
from wsigen.evaluation.sides.datasets import Indexing, named_dataset, open_members
from wsigen.evaluation.sides.labels import Labels
from wsigen.evaluation.sides.members import Member, Skipped, find_members
from wsigen.storage.files import sha256

SAME_MPP = 0.03
"""um/px that differ by less are the same: scanners of one kind differ by a percent."""

MOST_ENLARGED = 2.0
"""Times an image may be enlarged; beyond that features tell of the interpolation."""


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
    name:
        ``real``, ``synthetic``, ``training``: for messages.
    path:
        As given.
    members:
        In the order of their paths.
    skipped:
        What could not be read; `skip` adds what turns out to be damaged.
    level_mpp:
        um/px of a dataset's finest level; it goes before that of its images.
    unlabelled:
        Why the annotations of a member cannot be used, by its position; `labels` adds to it.
    """

    name: str
    path: Path
    members: list[Member]
    skipped: list[Skipped] = field(default_factory=list)
    level_mpp: float | None = None
    unlabelled: dict[int, str] = field(default_factory=dict)

    def read(self, crop: Crop) -> NDArray[np.uint8]:
        """Return the pixels of a crop, uint8 ``(P, P, 3)`` RGB."""
        return self.members[crop.member].reference.region(crop.box, crop.canvas)

    def full_size(self, crop: Crop) -> Box:
        """Where a crop lies in px of the full resolution."""
        scale = self.members[crop.member].reference.height / crop.canvas[0]
        return Box(*(round(v * scale) for v in (crop.box.y0, crop.box.x0, crop.box.y1, crop.box.x1)))

    def labels(self, index: int) -> Labels | None:
        """Classes drawn on a member; None (and a note) if what is drawn cannot be used, too."""
        if index in self.unlabelled:
            return None
        try:
            return self.members[index].labels
        except WsigenError as error:
            self.unlabelled[index] = f"{error}; the image counts as unlabelled"
            return None

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
        """um/px of the finest member (of a dataset's finest level), None if one does not say.

        Raises
        ------
        EvaluationError
            If members differ.
        """
        if self.level_mpp is not None:
            return self.level_mpp
        known = [m.mpp for m in self.members]
        if any(v is None for v in known):
            return None
        values = sorted(v for v in known if v is not None)
        if values[-1] > values[0] * (1 + SAME_MPP):
            raise EvaluationError(
                f"{self.path}: its images have {values[0]:g} to {values[-1]:g} um/px; say at which to compare with --mpp"
            )
        return values[0]


def open_side(name: str, path: Path, stated_mpp: float | None = None, watch: Indexing | None = None) -> Side:
    """Open a slide, a folder of slides, a folder of tiles or a dataset; unreadable files are kept in ``skipped``.

    Parameters
    ----------
    path:
        A dataset is its YAML file: its held-out images. ``FILE.yaml#training`` and ``FILE.yaml#all`` mean the others.
    watch:
        Called while the index of a dataset is built.

    Raises
    ------
    EvaluationError
        If nothing can be read.
    DatasetError
        If the dataset cannot be used as its file describes it.
    """
    dataset = named_dataset(path)
    if dataset is None:
        return Side(name, path, *find_members(path, stated_mpp))
    if stated_mpp is not None:
        raise EvaluationError(f"{path}: a dataset says its own um/px; leave out --{name}-mpp, or mend 'mpp' in its sources")
    return Side(name, path, *open_members(*dataset, watch))


def common_mpp(sides: list[Side], asked: float | None) -> float | None:
    """The um/px at which sides are compared; None: no side says any, and pixels are compared as they are.

    Raises
    ------
    EvaluationError
        If the sides differ and nobody said at which to compare, or one does not say its own.
    """
    if asked is not None:
        silent = [s for s in sides if any(m.mpp is None for m in s.members)]
        if silent:
            raise EvaluationError(_silent(silent[0], f"cannot be brought to {asked:g} um/px"))
        return asked
    known = [s.mpp for s in sides]
    if all(v is None for v in known):
        return None
    for side, mpp in zip(sides, known, strict=True):
        if mpp is None:
            raise EvaluationError(_silent(side, "cannot be compared with a side that says its own"))
    values = [v for v in known if v is not None]
    if max(values) > min(values) * (1 + SAME_MPP):
        told = ", ".join(f"{s.name} {v:g}" for s, v in zip(sides, values, strict=True))
        raise EvaluationError(f"the sides have different um/px ({told}); say at which to compare, e.g. --mpp {max(values):g}")
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
    worst = max((m for s in sides for m in s.members), key=lambda m: m.mpp or 0)
    if worst.mpp and worst.mpp > MOST_ENLARGED * mpp:
        raise EvaluationError(
            f"{worst.path}: {worst.mpp:g} um/px would be enlarged {worst.mpp / mpp:.3g} times to {mpp:g}, which shows no more "
            f"of the tissue; compare at a coarser --mpp, e.g. --mpp {worst.mpp:g}"
        )
    found = []
    for side in sides:
        coarse = [m.mpp for m in side.members if m.mpp and m.mpp > mpp * (1 + SAME_MPP)]
        if coarse:
            found.append(
                f"{side.name}: {len(coarse)} of {len(side.members)} images are coarser than the {mpp:g} um/px compared at (up "
                f"to {max(coarse):g}) and were enlarged: they lack detail, which numbers take for a difference; see --mpp"
            )
    return found


def same_files(sides: dict[str, Side]) -> list[str]:
    """Say which files two sides share by content: comparing them says nothing."""
    found, names = [], list(sides)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            count = shared_files(sides[a], sides[b])
            if count:
                total = len(sides[b].members)
                found.append(f"{a} and {b} are the same in {count} of {total} files: numbers compare them with themselves")
    return found


def shared_files(a: Side, b: Side) -> int:
    """Count files of ``b`` whose bytes are a file of ``a``; only files of equal size are read."""
    sizes = {m.path.stat().st_size for m in a.members} & {m.path.stat().st_size for m in b.members}
    known = {sha256(m.path) for m in a.members if m.path.stat().st_size in sizes}
    return sum(m.path.stat().st_size in sizes and sha256(m.path) in known for m in b.members)


def _silent(side: Side, problem: str) -> str:
    file = next(m.path for m in side.members if m.mpp is None)
    return f"{file}: does not say its um/px and {problem}; say it with --{side.name}-mpp"
