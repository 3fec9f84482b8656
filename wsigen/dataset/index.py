"""The index of a dataset: sizes, tissue and patches, made by going through the images once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DatasetError, ImageError
from wsigen.dataset.discovery import ImageFile
from wsigen.dataset.groups import TRAINING
from wsigen.dataset.labels import Labels
from wsigen.dataset.members import Member
from wsigen.dataset.opening import open_listed
from wsigen.dataset.patches import Patches, lattice, thin
from wsigen.dataset.settings import DatasetSettings, TileSource
from wsigen.slide.reading import ImageSource
from wsigen.slide.tissue import Mask, find_tissue
from wsigen.storage.files import atomic_path

VERSION = 3
"""Raised when the meaning of an index, or the way patches are made, changes."""

Watch = Callable[[int, int, str], None]
"""Called with (images done, images in all, name)."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """What going through the images gave.

    Attributes
    ----------
    names, opened, masks : of every image that could be opened
    skipped : (name, reason) of those that could not
    patches : `Patches`; ``member`` counts in ``names``
    areas : int64 [images, levels, classes + 1], cells of each class, and of tissue without label
    """

    names: list[str]
    opened: list[ImageSource]
    masks: list[Mask | None]
    skipped: list[tuple[str, str]]
    patches: Patches
    areas: NDArray[np.int64]


def build_index(
    settings: DatasetSettings,
    files: Sequence[ImageFile],
    labels: Mapping[str, Labels],
    groups: Mapping[str, str],
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
    kept, opened, masks, skipped = _open_all(settings, files, cache, skip_bad, watch)
    parts: list[Patches] = []
    areas = np.zeros((len(kept), len(settings.levels), len(settings.classes) + 1), np.int64)
    for i, (file, image, mask) in enumerate(zip(kept, opened, masks, strict=True)):
        member = make_member(settings, file, image, labels[file.name], mask, groups[file.name])
        for k, level in enumerate(settings.levels):
            if not settings.too_coarse(member.mpp, level):
                patches, areas[i, k] = lattice(member, i, k, settings)
                parts.append(patches)
    names = [f.name for f in kept]
    sides = np.array([groups[n] in held_out for n in names], np.int64)
    patches = Patches.join(parts, len(settings.classes))
    coarse = sum(all(settings.too_coarse(o.mpp or 1.0, level) for level in settings.levels) for o in opened)
    cause = f"; {coarse} of {len(opened)} images would be enlarged beyond most_upsampling" if coarse else ""
    _check_classes(settings, [labels[n] for n in names], areas, patches, sides, cause)
    return Index(names, opened, masks, skipped, thin(patches, names, sides, settings), areas)


def make_member(
    settings: DatasetSettings,
    file: ImageFile,
    image: ImageSource,
    labels: Labels,
    mask: Mask | None,
    group: str,
    subtype: str | None = None,
) -> Member:
    """Put together what is known about an image."""
    glass = settings.table.background if getattr(settings.sources[file.source], "glass", False) else None
    return Member(file.name, file.path, image, labels, settings.table, mask, glass, group, subtype)


def _open_all(
    settings: DatasetSettings, files: Sequence[ImageFile], cache: Path, skip_bad: bool, watch: Watch | None
) -> tuple[list[ImageFile], list[ImageSource], list[Mask | None], list[tuple[str, str]]]:
    """Open every image and find its tissue: some files open and cannot be read."""
    kept, opened, bad = [], [], []
    masks: list[Mask | None] = []
    for i, file in enumerate(files):
        if watch is not None:
            watch(i, len(files), file.name)
        source = settings.sources[file.source]
        try:
            image = open_listed(file.path, file.name, source, cache)
            masks.append(None if isinstance(source, TileSource) else find_tissue(image, image.mpp))
            opened.append(image)
            kept.append(file)
        except ImageError as error:
            bad.append((file.name, str(error)))
    if bad and (not skip_bad or not kept):
        names = ", ".join(PurePosixPath(n).name for n, _ in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DatasetError(
            f"{len(bad)} of {len(files)} images cannot be opened ({names}); the first: {bad[0][1].split(';')[0]}; "
            "mend them, or leave them out with --skip-bad"
        )
    return kept, opened, masks, bad


def _check_classes(
    settings: DatasetSettings,
    labels: Sequence[Labels],
    areas: NDArray[np.int64],
    patches: Patches,
    sides: NDArray[np.int64],
    cause: str,
) -> None:
    """Refuse a class nobody labelled, or that has no patch to train on; ``cause`` may be why."""
    px, mpp = settings.patch_px, settings.mpps[0]
    if not len(patches):
        raise DatasetError(
            f"no patches: no image holds {px} x {px} px of tissue at {mpp} um/px{cause}; "
            "lower patch_px or min_tissue, or check mpp"
        )
    if not any(of_image.any for of_image in labels):
        return  # nothing is labelled: an autoencoder's dataset
    counts = patches.counts
    training = counts[sides[patches.member] == TRAINING].sum(axis=0)
    for index, c in enumerate(settings.classes):
        if training[index]:
            continue
        if counts[:, index].any():
            raise DatasetError(f"class {c.name!r} has no patches in training, only in held-out groups; hold out other groups")
        if areas[:, :, index].any() or any(of_image.names(index) for of_image in labels):
            raise DatasetError(
                f"class {c.name!r} has no patches: its images or areas are smaller than {px} px at {mpp} um/px or fall between "
                f"cells{cause}; lower patch_px or add larger ones"
            )
        raise DatasetError(f"class {c.name!r} is in no source; remove it from 'classes' or add images that carry it")


def index_key(settings: DatasetSettings, files: Iterable[Path], skip_bad: bool) -> str:
    """Hash the settings and the size and time of change of every file they lead to."""
    stamps = [(str(p), s.st_size, s.st_mtime_ns) for p in sorted(set(files)) for s in [p.stat()]]
    text = json.dumps([VERSION, settings.model_dump(mode="json"), stamps, skip_bad], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def index_path(cache: Path) -> Path:
    """Where the index of a cache folder lies."""
    return cache / "index.npz"


def save_index(path: Path, index: Index, key: str) -> None:
    """Write the index, whole or not at all."""
    about = {
        "key": key,
        "names": index.names,
        "opened": [asdict(o) for o in index.opened],
        "masks": [None if m is None else m.shape for m in index.masks],
        "skipped": index.skipped,
    }
    p = index.patches
    arrays: dict[str, NDArray[np.generic]] = {f"mask_{i}": np.packbits(m) for i, m in enumerate(index.masks) if m is not None}
    arrays |= {"member": p.member, "level": p.level, "y": p.y, "x": p.x, "counts": p.counts, "areas": index.areas}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # mypy takes ** for allow_pickle


def load_index(path: Path, key: str) -> Index | None:
    """Read the index; None if there is none, it is of other settings or files, or it is damaged."""
    try:
        with np.load(path) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["key"] != key:
                return None
            opened = [ImageSource(**o) for o in about["opened"]]
            if not all(Path(o.path).exists() for o in opened):
                return None
            masks = [None if s is None else _unpack(stored[f"mask_{i}"], s) for i, s in enumerate(about["masks"])]
            patches = Patches(*(stored[name] for name in ("member", "level", "y", "x", "counts")))
            skipped = [(str(n), str(r)) for n, r in about["skipped"]]
            return Index(about["names"], opened, masks, skipped, patches, stored["areas"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
        return None


def _unpack(bits: NDArray[np.uint8], shape: list[int]) -> Mask:
    height, width = shape
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
