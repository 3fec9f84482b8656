"""The images of a side of an evaluation: files of a folder with what lies beside them, or a part of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import DatasetError, EvaluationError, WsigenError, suggest
from wsigen.dataset import open_dataset
from wsigen.dataset.images import SUFFIXES, base_name
from wsigen.dataset.label_sources import annotations_of
from wsigen.dataset.labels import Labels, PolygonLabels, WholeLabel
from wsigen.dataset.members import Member
from wsigen.layout.class_names import WrittenClasses
from wsigen.layout.geojson import class_names
from wsigen.slide.dicom import is_dicom, one_of_each
from wsigen.slide.reading import open_image

TILE_PX = 2048
"""Longest side of a tile; collections of tiles have 96 to 2048 px (BACH's 2048 x 1536 are the largest we know)."""

UNLABELLED: tuple[Labels, ClassTable] = (
    WholeLabel(UNKNOWN),
    ClassTable((TissueClass("(no annotation)", (255, 255, 255), True),)),
)
"""Labels and classes of an image on which nothing is drawn."""

MOST_CLASSES = 200
"""Classes of a file of annotations."""

Part = Literal["held_out", "training", "all"]
PARTS: tuple[Part, ...] = ("held_out", "training", "all")

Indexing = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask of one bit per pixel: a side of many slides keeps all of its masks."""

    bits: NDArray[np.uint8]
    shape: tuple[int, int]
    count: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> PackedMask:
        """Pack bool ``(h, w)``."""
        return cls(np.packbits(mask, axis=1), (mask.shape[0], mask.shape[1]), int(mask.sum()))

    def rows(self, y0: int, y1: int) -> NDArray[np.bool_]:
        """Unpack some rows to bool ``(y1 - y0, w)``."""
        return np.unpackbits(self.bits[y0:y1], axis=1, count=self.shape[1]).astype(bool)

    def array(self) -> NDArray[np.bool_]:
        """Unpack to bool ``(h, w)``."""
        return self.rows(0, self.shape[0])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that cannot be used, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        """One line; most reasons name the file themselves."""
        return self.reason if Path(self.path).name in self.reason else f"{self.path}: {self.reason}"


def find_members(
    path: Path, stated_mpp: float | None, names: WrittenClasses
) -> tuple[list[Member], list[Skipped], dict[int, str], Counter[str]]:
    """Open every image of a side.

    Parameters
    ----------
    path : Path
        A slide, or a folder of slides or tiles. Sub-folders are taken as classes of tiles (`TILE_PX`), ``CLASS/TILE``, and the
        next ones as their patients, ``CLASS/PATIENT/TILE``; of slides and annotated tiles the first ones are the patients,
        ``PATIENT/SLIDE``. Deeper folders (blocks, slides) are their patient's. Without any, a slide is its own patient, and of
        a tile nobody knows it.
    stated_mpp : float or None
        um/px of files that do not say it, and instead of what they say.
    names : WrittenClasses
        Renames the classes of annotations and of folders of tiles; the tiles of a class that it leaves out are no members.

    Returns
    -------
    members, skipped, unlabelled, left_out
        What can be read, what cannot, why the annotations beside a member cannot be used, by its position, and how many tiles
        ``names`` leaves out, by their folder.

    Raises
    ------
    EvaluationError
        If nothing is there, nothing can be read, or all is left out.
    """
    if not path.exists():
        raise EvaluationError(f"{path}: no such slide or folder")
    files = one_of_each(p for p in path.rglob("*") if _is_image(p)) if path.is_dir() else [path]
    if not files:
        raise EvaluationError(f"{path}: no image in this folder; known are {', '.join(sorted(SUFFIXES))}")
    members, skipped, unlabelled = list[Member](), list[Skipped](), dict[int, str]()
    left_out = Counter[str]()
    for file in files:
        try:
            image = open_image(file)
        except WsigenError as error:
            skipped.append(Skipped(str(file), str(error)))
            continue
        folders = file.relative_to(path).parts[:-1] if path.is_dir() else ()
        labels, table = UNLABELLED
        is_tile = max(image.height, image.width) <= TILE_PX
        group = folders[0] if folders else None if is_tile else base_name(file)
        if _is_drawn_on(file):
            try:
                labels, table = _drawn(file, names)
            except WsigenError as error:
                unlabelled[len(members)] = f"{error}; the image counts as unlabelled"
        elif folders and is_tile:
            class_name = names.find(folders[0])
            if class_name is None:
                left_out[folders[0]] += 1
                continue
            labels, table = WholeLabel(0), ClassTable((TissueClass(class_name, (0, 0, 0)),))
            group = folders[1] if len(folders) > 1 else None
        image = image.stated(stated_mpp)
        members.append(Member(file.name, file, image, labels, table, group=group))
    if not members and not skipped:
        raise EvaluationError(f"{path}: --layout-names leaves out all of its {len(files)} tiles; keep a class")
    if not members:
        kept = len(files) - left_out.total()
        raise EvaluationError(f"{path}: none of {kept} files can be read; the first: {skipped[0].reason}")
    return members, skipped, unlabelled, left_out


def _is_drawn_on(slide: Path) -> bool:
    """Whether annotations lie beside an image."""
    try:
        return annotations_of(slide) is not None
    except DatasetError:  # several do
        return True


def _drawn(slide: Path, names: WrittenClasses) -> tuple[Labels, ClassTable]:
    """The polygons beside an image and the classes they name; polygons without any are as if they were not drawn."""
    path = annotations_of(slide)
    classes = names.classes([*class_names(path), ""]) if path else []
    if path is None or not classes:
        return UNLABELLED
    if len(classes) > MOST_CLASSES:
        raise EvaluationError(f"{path}: {len(classes)} classes; these are no tissue classes")
    table = ClassTable(tuple(TissueClass(name, (0, 0, 0)) for name in classes))
    of_file = {written: name for written, name in names.names.items() if name is None or name in classes}
    return PolygonLabels(path, table, rename={"": None, **of_file}), table


def folders_without_class(path: Path, members: list[Member]) -> list[str]:
    """Say of how many images the sub-folders name no class, though they might: large ones on which nothing is drawn."""
    count = sum(not m.labels.any and m.path.parent != path and not _is_drawn_on(m.path) for m in members)
    if not count or not path.is_dir():
        return []
    return [
        f"{count} of {len(members)} images in sub-folders are larger than {TILE_PX} px and nothing is drawn on them: they "
        "count as slides without classes, their folders as patients; for numbers by class cut them into tiles, or draw on them"
    ]


def _is_image(path: Path) -> bool:
    """Whether a file is an image and not a picture that lies beside a slide of ours."""
    if path.name.startswith(".") or not path.is_file() or (path.suffix.lower() not in SUFFIXES and not is_dicom(path)):
        return False
    base = path.name.removesuffix(".png").removesuffix(".jpg").removesuffix(".overlay")  # .png: of older slides
    return base == path.name or not any(path.with_name(base + suffix).exists() for suffix in (".ome.tiff", ".ome.tif"))


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
    return fine, skipped, dataset.mpps[0]
