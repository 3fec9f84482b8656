"""A side of an evaluation, and random crops from the tissue of it: a pure function of the seed, read one by one."""

from __future__ import annotations

import hashlib
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
from wsigen.evaluation.sides.places import Field

SAME_MPP = 0.03
"""um/px that differ by less are the same: scanners of one kind differ by a percent."""

MOST_ENLARGED = 2.0
"""Times an image may be enlarged; beyond that features tell of the interpolation."""

_TRIES = 60
"""Places tried per crop asked for, before fewer are returned."""


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


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop: the image it is from, its place on that image at the evaluation's um/px, its class or None."""

    member: int
    box: Box
    canvas: tuple[int, int]
    class_name: str | None = None


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


def place_crops(side: Side, count: int, side_px: int, mpp: float | None, seed: int) -> list[Crop]:
    """Draw places of square crops from tissue, each at most once.

    An image is chosen by the area of its tissue, then a pixel of its tissue as the centre; at least half of a crop is
    tissue. The same seed gives the same crops, whatever else is evaluated.

    Parameters
    ----------
    side_px:
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
    found: dict[tuple[int, Box], None] = {}
    for _ in range(_TRIES * count):
        if len(found) == count or not weights.any():
            break
        member = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
        chosen = fields[member]
        assert chosen is not None  # its weight would be 0
        box = chosen.draw(rng)
        if box is not None:
            found[(member, box)] = None
        if chosen.single:
            weights[member] = 0
    order = sorted(found, key=lambda item: (item[0], item[1]))
    placed = [fields[m] for m, _ in order]
    return [_labelled(side, m, b, f.canvas) for (m, b), f in zip(order, placed, strict=True) if f is not None]


def read_crop(side: Side, crop: Crop) -> NDArray[np.uint8]:
    """Return the pixels of a crop, uint8 ``[P, P, 3]`` RGB."""
    return side.members[crop.member].reference.region(crop.box, crop.canvas)


def places_of(side: Side, index: int, side_px: int, mpp: float | None) -> Field | None:
    """Return where crops may lie on a member; None (and a note) if it is too small or damaged."""
    member = side.members[index]
    canvas = member.canvas(mpp)
    try:
        if min(canvas) < side_px:
            raise EvaluationError(f"{member.path}: {canvas[1]} x {canvas[0]} px, smaller than a crop of {side_px} px")
        return Field(member.tissue, canvas, side_px)
    except WsigenError as error:
        side.skip(member.path, str(error))
        return None


def at_full_size(member: Member, box: Box, canvas: tuple[int, int]) -> Box:
    """A box of an image resized to ``canvas`` in pixels of its full resolution."""
    scale = member.reference.height / canvas[0]
    return Box(*(round(v * scale) for v in (box.y0, box.x0, box.y1, box.x1)))


def _labelled(side: Side, index: int, box: Box, canvas: tuple[int, int]) -> Crop:
    member, labels = side.members[index], side.labels(index)
    if labels is None:
        return Crop(index, box, canvas, member.folder_class)
    return Crop(index, box, canvas, labels.class_of(at_full_size(member, box, canvas)))


def _silent(side: Side, problem: str) -> str:
    file = next(m.path for m in side.members if m.mpp is None)
    return f"{file}: does not say its um/px and {problem}; say it with --{side.name}-mpp"
