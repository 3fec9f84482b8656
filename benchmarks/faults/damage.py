"""Bytes of a run's store that go wrong."""

from __future__ import annotations

import os
import random
from pathlib import Path

from wsigen.storage.files import target_of_leftover


def damage(files: list[Path], chance: random.Random, truncate: bool) -> Path | None:
    """Cut off or flip something in one of some files.

    Returns
    -------
    Path or None
        The file; None if there was none to harm.
    """
    for path in chance.sample(files, len(files)):
        try:
            size = path.stat().st_size
            with path.open("r+b") as file:
                if truncate:
                    file.truncate(chance.randrange(size))
                else:
                    file.seek(place := chance.randrange(size))
                    byte = file.read(1)[0]
                    file.seek(place)
                    file.write(bytes([byte ^ (1 << chance.randrange(8))]))
            return path
        except (FileNotFoundError, IndexError, ValueError):
            continue  # deleted or emptied meanwhile: the run goes on
    return None


def stored(run_dir: Path) -> list[Path]:
    """Chunks and blocks that are there now, in a fixed order."""
    chunks, blocks = [], []
    for work in run_dir.glob("work-*"):
        state = work / "state.zarr"
        chunks += [p for p in _walk(state) if "c" in p.relative_to(state).parts and target_of_leftover(p.name) is None]
        blocks += [p for p in _walk(work / "spool") if p.suffix == ".blk"]
    return sorted([*chunks, *blocks])


def _walk(folder: Path) -> list[Path]:
    """Files below a folder in which others delete and write."""
    return [Path(inner, name) for inner, _, names in os.walk(folder) for name in names]
