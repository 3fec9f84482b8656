"""A dataset as a side of an evaluation: the images of one of its splits, with the classes and tissue it knows of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsigen.base.classes import ClassTable
from wsigen.base.errors import EvaluationError, suggest
from wsigen.dataset import Dataset, open_dataset
from wsigen.dataset.labels import WholeLabel
from wsigen.dataset.members import Member as DatasetMember
from wsigen.evaluation.sides.labels import Labels
from wsigen.evaluation.sides.members import Member, Skipped
from wsigen.slide.tissue import Mask

Part = Literal["held_out", "training", "all"]
PARTS: tuple[Part, ...] = ("held_out", "training", "all")

Indexing = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True, eq=False)
class DatasetNotes:
    """See `members.Notes`."""

    member: DatasetMember
    table: ClassTable

    @property
    def tissue(self) -> Mask | None:
        """What the dataset found, and trains on; None for its tiles, which it takes whole."""
        return self.member.mask

    def labels(self) -> Labels | None:
        """Polygons or spots; None for whole images (tiles) and unlabelled ones."""
        said = self.member.labels
        return None if isinstance(said, WholeLabel) else Labels(self.member.layout(self.member.mpp), self.table)


def named_dataset(path: Path) -> tuple[Path, Part] | None:
    """Tell ``FILE.yaml`` (the held-out images), ``FILE.yaml#training`` and ``FILE.yaml#all`` from other paths.

    Raises
    ------
    EvaluationError
        If there is no such part.
    """
    file, mark, part = str(path).partition("#")
    if Path(file).suffix.lower() not in {".yaml", ".yml"}:
        return None
    for known in PARTS:
        if part == known or not mark:
            return Path(file), known
    raise EvaluationError(f"{path}: a dataset has no part {part!r}{suggest(part, PARTS)}; known: {', '.join(PARTS)}")


def open_members(file: Path, part: Part, watch: Indexing | None = None) -> tuple[list[Member], list[Skipped], float]:
    """Open the images of a part of a dataset; the index lies where ``wsigen train data`` keeps it, ``FILE.cache``.

    Returns
    -------
    members, skipped, mpp:
        The last is the um/px of the finest level, at which a model is trained.

    Raises
    ------
    DatasetError
        If the dataset cannot be used as its file describes it.
    EvaluationError
        If the part is empty.
    """

    def tell(done: int, total: int, name: str) -> None:
        if watch is not None:
            watch(done + 1, total)

    dataset = open_dataset(file, skip_bad=True, watch=tell)
    chosen = {"held_out": dataset.held_out, "training": dataset.training, "all": dataset.members}[part]
    if not chosen:
        raise EvaluationError(f"{file}: holds out no images; add held_out or held_out_share, or take {file.name}#training")
    skipped = [Skipped(name, reason) for name, reason in dataset.skipped]
    finest = dataset.levels[0]
    coarse = [m for m in chosen if dataset.settings.too_coarse(m.mpp, finest)]
    skipped += [Skipped(m.name, f"{m.mpp:g} um/px, too coarse for level {finest.name!r}") for m in coarse]
    fine = [m for m in chosen if m not in coarse]
    if not fine:
        raise EvaluationError(f"{file}: all images of its part {part!r} are too coarse for level {finest.name!r}")
    return [_member(dataset, m) for m in fine], skipped, dataset.mpps[0]


def _member(dataset: Dataset, member: DatasetMember) -> Member:
    said = member.labels
    whole = dataset.table[said.class_index].name if isinstance(said, WholeLabel) and said.any else None
    return Member(member.reference, member.mpp, whole, member.group, member.path, DatasetNotes(member, dataset.table))
