"""What a model's folder holds, as a short name: the same folder under another path is the same model."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

PARTS = ("unet", "vae", "bundle/vae", "scheduler", "text_encoder", "tokenizer")
"""Folders of a diffusers model that training may begin at; of the rest of a repository nothing is used."""


def model_key(folder: Path | None) -> str | None:
    """SHA-256 (16 hex digits) of the configs and weights of a diffusers folder or bundle; None for None.

    Parts that are not there count as not there: whether a model can be loaded is asked elsewhere.
    """
    if folder is None:
        return None
    named = [p for part in PARTS for kind in ("*.json", "*.txt", "*.safetensors") for p in (folder / part).glob(kind)]
    named += [p for kind in ("config.json", "*.safetensors") for p in folder.glob(kind) if (folder / "config.json").is_file()]
    named += [p for p in (folder / "wsigen.yaml", folder / "bundle" / "wsigen.yaml") if p.is_file()]
    total = hashlib.sha256()
    for path in sorted(named):
        stat = path.stat()
        total.update(path.relative_to(folder).as_posix().encode() + _file_key(path, stat.st_size, stat.st_mtime_ns))
    return total.hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _file_key(path: Path, size: int, changed_ns: int) -> bytes:
    """Read a file once, unless it changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
