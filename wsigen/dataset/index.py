"""The index of a dataset: sizes, tissue and patches, made by going through the images once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DatasetError, ImageError
from wsigen.base.geometry import Box
from wsigen.dataset.groups import TRAINING
from wsigen.dataset.images import ImageFile, open_listed
from wsigen.dataset.members import Member
from wsigen.dataset.patches import Patches, lattice, thin
from wsigen.dataset.settings import DatasetSettings, TileSource
from wsigen.slide.info import told
from wsigen.slide.reading import ImageSource
from wsigen.slide.tissue import Mask, find_tissue
from wsigen.storage.files import atomic_path

VERSION = 7
"""Raised when the meaning of an index, or the way patches are made, changes."""

Watch = Callable[[int, int, str], None]
"""Called with (images done, images in all, name)."""

MakeMember = Callable[[ImageFile, ImageSource, Mask | None], Member]
"""Puts together what is known about an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """What going through the images gave.

    Attributes
    ----------
    members : every image that could be opened
    skipped : (name, reason) of those that could not
    patches : `Patches`; ``member`` counts in ``members``
    areas : int64 [members, levels, classes + 1], cells of each class, and of tissue without label
    notes : what of the labels is left out or mended, a line each
    """

    members: list[Member]
    skipped: list[tuple[str, str]]
    patches: Patches
    areas: NDArray[np.int64]
    notes: list[str]


def build_index(
    settings: DatasetSettings,
    files: Sequence[ImageFile],
    make_member: MakeMember,
    held_out: frozenset[str],
    cache: Path,
    skip_bad: bool,
    watch: Watch | None = None,
) -> Index:
    """Go through the images, one in memory at a time.

    Raises
    ------
    DatasetError
        If an image cannot be opened (unless ``skip_bad``), a label lies outside of it, or a class has no patches.
    """
    members, skipped = _open_all(settings, files, make_member, cache, skip_bad, watch)
    notes = _read_labels(members)
    parts: list[Patches] = []
    areas = np.zeros((len(members), len(settings.levels), len(settings.classes) + 1), np.int64)
    for i, member in enumerate(members):
        for k, level in enumerate(settings.levels):
            if not settings.too_coarse(member.mpp, level):
                patches, areas[i, k] = lattice(member, i, k, settings)
                parts.append(patches)
    sides = np.array([m.group in held_out for m in members], np.int64)
    patches = Patches.join(parts, len(settings.classes))
    notes += _check_classes(settings, members, areas, patches, sides)
    return Index(members, skipped, thin(patches, [m.name for m in members], sides, settings), areas, notes)


def _read_labels(members: Sequence[Member]) -> list[str]:
    """Read the labels of all images once; returns what is left out or mended in them.

    Raises
    ------
    DatasetError
        If some cannot be used: all of them, so that nobody mends one file a run.
    """
    notes, faults = list[tuple[str, str]](), list[str]()
    for member in members:
        try:
            notes += member.labels.notes(member.reference)
        except DatasetError as error:
            faults.append(str(error))
    if len(faults) == 1:
        raise DatasetError(faults[0])
    if faults:
        raise DatasetError(f"the labels of {len(faults)} of {len(members)} images cannot be used: " + " — ".join(faults))
    return told(notes)


def _open_all(
    settings: DatasetSettings,
    files: Sequence[ImageFile],
    make_member: MakeMember,
    cache: Path,
    skip_bad: bool,
    watch: Watch | None,
) -> tuple[list[Member], list[tuple[str, str]]]:
    """Open every image and find its tissue: some files open and cannot be read."""
    members, bad = [], []
    for i, file in enumerate(files):
        if watch is not None:
            watch(i, len(files), file.name)
        source = settings.sources[file.source]
        try:
            image = open_listed(file.path, file.name, source, cache)
            mask = None if isinstance(source, TileSource) else find_tissue(image, image.mpp)
            members.append(make_member(file, image, mask))
        except ImageError as error:
            bad.append((file.name, str(error)))
    if bad and (not skip_bad or not members):
        names = ", ".join(PurePosixPath(n).name for n, _ in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DatasetError(
            f"{len(bad)} of {len(files)} images cannot be opened ({names}); the first: {bad[0][1].split(';')[0]}; "
            "mend them, or leave them out with --skip-bad"
        )
    return members, bad


def _check_classes(
    settings: DatasetSettings,
    members: Sequence[Member],
    areas: NDArray[np.int64],
    patches: Patches,
    sides: NDArray[np.int64],
) -> list[str]:
    """Refuse a class nobody labelled, or that has no patch to train on; of bare glass say so: no model draws it."""
    px, mpp = settings.patch_px, settings.mpps[0]
    coarse = sum(all(settings.too_coarse(m.mpp, level) for level in settings.levels) for m in members)
    cause = f"; {coarse} of {len(members)} images would be enlarged beyond most_upsampling" if coarse else ""
    if not len(patches):
        raise DatasetError(
            f"no patches: no image holds {px} x {px} px of tissue at {mpp} um/px{cause}; "
            "lower patch_px or min_tissue, or check mpp"
        )
    if not any(m.labels.any for m in members):
        return []  # nothing is labelled: an autoencoder's dataset
    notes = []
    counts = patches.counts
    training = counts[sides[patches.member] == TRAINING].sum(axis=0)
    for index, c in enumerate(settings.classes):
        if training[index]:
            continue
        if counts[:, index].any():
            raise DatasetError(f"class {c.name!r} has no patches in training, only in held-out groups; hold out other groups")
        if areas[:, :, index].any() or any(m.labels.names(index, m.reference) for m in members):
            raise DatasetError(
                f"class {c.name!r} has no patches: its images or areas are smaller than {px} px at {mpp} um/px or fall between "
                f"cells{cause}; lower patch_px or add larger ones"
            )
        if not c.background:
            raise DatasetError(f"class {c.name!r} is in no source; add images that carry it, or remove it from 'classes'")
        notes.append(f"nothing is labelled {c.name!r}; 'glass: true' on a source makes what lies outside the tissue that")
    return notes


def index_key(settings: DatasetSettings, files: Iterable[Path], skip_bad: bool) -> str:
    """Hash the settings and the size and time of change of every file they lead to."""
    stamps = [(str(p), s.st_size, s.st_mtime_ns) for p in sorted(set(files)) for s in [p.stat()]]
    text = json.dumps([VERSION, settings.model_dump(mode="json"), stamps, skip_bad], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_index(path: Path, index: Index, key: str) -> None:
    """Write the index, whole or not at all."""
    about = {
        "key": key,
        "names": [m.name for m in index.members],
        "images": [asdict(m.reference) for m in index.members],
        "masks": [None if m.mask is None else m.mask.shape for m in index.members],
        "skipped": index.skipped,
        "notes": index.notes,
    }
    arrays: dict[str, NDArray[np.generic]] = {f.name: getattr(index.patches, f.name) for f in fields(Patches)}
    arrays |= {f"mask_{i}": np.packbits(m.mask) for i, m in enumerate(index.members) if m.mask is not None}
    arrays |= {"areas": index.areas, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # mypy takes ** for allow_pickle


def load_index(path: Path, key: str, files: Sequence[ImageFile], make_member: MakeMember) -> Index | None:
    """Read the index; None if there is none, it is of other settings or files, or it is damaged."""
    by_name = {file.name: file for file in files}
    try:
        with np.load(path) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["key"] != key:
                return None
            images = [_image(image) for image in about["images"]]
            if not all(Path(image.path).exists() for image in images):
                return None
            masks = [None if s is None else _unpack(stored[f"mask_{i}"], *s) for i, s in enumerate(about["masks"])]
            members = [
                make_member(by_name[name], image, mask) for name, image, mask in zip(about["names"], images, masks, strict=True)
            ]
            skipped = [(str(n), str(r)) for n, r in about["skipped"]]
            patches = Patches(*(stored[f.name] for f in fields(Patches)))
            return Index(members, skipped, patches, stored["areas"], [str(note) for note in about["notes"]])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
        return None


def _image(stored: dict[str, Any]) -> ImageSource:
    """An image from what `asdict` and JSON made of it."""
    scanned = stored["scanned"] and Box(**stored["scanned"])
    return ImageSource(**{**stored, "notes": tuple(stored["notes"]), "scanned": scanned})


def _unpack(bits: NDArray[np.uint8], height: int, width: int) -> Mask:
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
