"""The index of a dataset on disk: sizes, tissue and patches, so that images are gone through only once."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.dataset.opening import Opened
from wsigen.dataset.patches import Patches
from wsigen.dataset.settings import DatasetSettings
from wsigen.dataset.tissue import Mask
from wsigen.storage.files import atomic_path

VERSION = 2
"""Raised when the meaning of an index, or the way patches are found, changes."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """What going through the images found.

    Attributes
    ----------
    names, opened, masks : of every image that could be opened
    skipped : (name, reason) of those that could not
    patches : `Patches`; ``member`` counts in ``names``
    areas : int64 [images, levels, classes + 1], cells of each class, and of tissue without label
    """

    names: list[str]
    opened: list[Opened]
    masks: list[Mask | None]
    skipped: list[tuple[str, str]]
    patches: Patches
    areas: NDArray[np.int64]


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
            opened = [Opened(**o) for o in about["opened"]]
            if not all(Path(o.pixels).exists() for o in opened):
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
