"""The images of a side of an evaluation: which files they are, how fine they are, where their tissue lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError, WsigenError
from wsigen.evaluation.sides.labels import Labels, base_name, read_labels
from wsigen.slide.reading import ImageSource, open_image
from wsigen.slide.tissue import Mask, find_tissue

SUFFIXES = {".tif", ".tiff", ".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".png", ".jpg", ".jpeg", ".webp", ".bmp"}

TILE_PX = 2048
"""Longest side of a tile; collections of tiles have 96 to 2048 px (BACH's 2048 x 1536 are the largest we know)."""


class Notes(Protocol):
    """What is known of an image besides its file: a dataset's words on it."""

    @property
    def tissue(self) -> Mask | None:
        """Its tissue on a small view; None: it has to be looked for."""
        ...

    def labels(self) -> Labels | None:
        """Return its classes by place."""
        ...


@dataclass(frozen=True, eq=False)
class Member:
    """One readable image.

    Attributes
    ----------
    reference:
        Its pixels.
    mpp:
        um/px of the full resolution, or None if nobody knows.
    folder_class:
        Class of the whole image (tiles sorted by class), or None.
    group:
        Patient or slide it is of, or None if nobody knows.
    file:
        The file as its owner knows it, where the pixels are read from a copy.
    notes:
        What a dataset says about it; None: what lies beside the file.
    """

    reference: ImageSource
    mpp: float | None
    folder_class: str | None = None
    group: str | None = None
    file: Path | None = None
    notes: Notes | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.file or Path(self.reference.path)

    def canvas(self, mpp: float | None) -> tuple[int, int]:
        """``(height, width)`` of the whole image at ``mpp``; None: as it is."""
        scale = 1.0 if mpp is None or self.mpp is None else self.mpp / mpp
        return max(1, round(self.reference.height * scale)), max(1, round(self.reference.width * scale))

    @cached_property
    def tissue(self) -> PackedMask:
        """Where tissue lies, on a view of about 8 um/px."""
        known = None if self.notes is None else self.notes.tissue
        return PackedMask.of(find_tissue(self.reference, self.mpp) if known is None else known)

    @property
    def labels(self) -> Labels | None:
        """The classes drawn beside it (or named by its dataset), or None."""
        return _labels(self)


@lru_cache(maxsize=8)
def _labels(member: Member) -> Labels | None:
    """Annotations of a few images lie in memory, never those of a whole side."""
    if member.notes is not None:
        return member.notes.labels()
    return read_labels(member.path, (member.reference.height, member.reference.width))


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask of one bit per pixel: a side of many slides keeps all of its masks."""

    bits: NDArray[np.uint8]
    shape: tuple[int, int]
    count: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> PackedMask:
        """Pack bool ``[h, w]``."""
        return cls(np.packbits(mask, axis=1), (mask.shape[0], mask.shape[1]), int(mask.sum()))

    def rows(self, y0: int, y1: int) -> NDArray[np.bool_]:
        """Unpack some rows to bool ``[y1 - y0, w]``."""
        return np.unpackbits(self.bits[y0:y1], axis=1, count=self.shape[1]).astype(bool)

    def array(self) -> NDArray[np.bool_]:
        """Unpack to bool ``[h, w]``."""
        return self.rows(0, self.shape[0])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that cannot be used, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        """One line; most reasons name the file themselves."""
        return self.reason if Path(self.path).name in self.reason else f"{self.path}: {self.reason}"


def find_members(path: Path, stated_mpp: float | None) -> tuple[list[Member], list[Skipped]]:
    """Open every image of a side.

    Parameters
    ----------
    path:
        A slide, or a folder of slides or tiles. Sub-folders are taken as classes of tiles (`TILE_PX`), ``CLASS/TILE``, and what
        lies between as their patient or slide, ``CLASS/PATIENT/TILE``; of slides they are the patients, ``PATIENT/SLIDE``.
    stated_mpp:
        um/px of files that do not say it, and instead of what they say.

    Raises
    ------
    EvaluationError
        If nothing is there or nothing can be read.
    """
    if not path.exists():
        raise EvaluationError(f"{path}: no such slide or folder")
    files = sorted(p for p in path.rglob("*") if _is_image(p)) if path.is_dir() else [path]
    if not files:
        raise EvaluationError(f"{path}: no image in this folder; known are {', '.join(sorted(SUFFIXES))}")
    members, skipped = [], []
    for file in files:
        try:
            reference = open_image(file)
        except WsigenError as error:
            skipped.append(Skipped(str(file), str(error)))
            continue
        folders = file.relative_to(path).parts[:-1] if path.is_dir() else ()
        if _is_tile(reference) and folders:
            named, group = folders[0], "/".join(folders[1:]) or None
        else:  # a slide shows many tissues: its folders are its patient's, not its class's
            named, group = None, "/".join(folders) or base_name(file)
        members.append(Member(reference, stated_mpp or reference.mpp, named, group))
    if not members:
        raise EvaluationError(f"{path}: none of {len(files)} files can be read; the first: {skipped[0].reason}")
    return members, skipped


def folders_without_class(path: Path, members: list[Member]) -> list[str]:
    """Say of how many images the sub-folders name no class, though they might: large ones on which nothing is drawn."""
    count = sum(
        m.folder_class is None and m.notes is None and m.path.parent != path and not _drawings(m.reference) for m in members
    )
    if not count or not path.is_dir():
        return []
    return [
        f"{count} of {len(members)} images in sub-folders are larger than {TILE_PX} px and nothing is drawn on them: they "
        "count as slides without classes, their folders as patients; for numbers by class cut them into tiles, or draw on them"
    ]


def _is_tile(reference: ImageSource) -> bool:
    """Whether an image is no larger than tiles are, and no slide with annotations beside it."""
    return max(reference.height, reference.width) <= TILE_PX and not _drawings(reference)


def _drawings(reference: ImageSource) -> bool:
    """Whether annotations lie beside an image."""
    file = Path(reference.path)
    return any(file.with_name(f"{base_name(file)}{suffix}").is_file() for suffix in (".geojson", ".geojson.gz"))


def _is_image(path: Path) -> bool:
    """Whether a file is an image and not the thumbnail that lies beside a slide of ours."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
        return False
    return not (path.suffix == ".png" and path.with_suffix(".ome.tiff").exists())
