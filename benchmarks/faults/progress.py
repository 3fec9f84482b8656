"""How far a run is, read from the names of its files alone: damage and missing metadata do not disturb it."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.faults.damage import stored

_STATE = re.compile(r"work-[^/]+/state\.zarr/(pass-\d+)/latents/c/(\d+)/0/(\d+)/(\d+)")
_PARTIAL = re.compile(r"work-[^/]+/state\.zarr/(pass-\d+)/partials/c/(\d+)/(\d+)/(\d+)/0/0/0")


def half_steps(run_dir: Path) -> int:
    """Half-steps that all chunks have made, over all passes, and encoded blocks."""
    highest: dict[tuple[str, str, str], int] = {}
    blocks = 0
    for path in stored(run_dir):
        name = str(path.relative_to(run_dir))
        blocks += name.endswith(".blk")
        for pattern, odd in ((_STATE, 0), (_PARTIAL, 1)):
            if found := pattern.fullmatch(name):
                chunk = (found[1], found[3], found[4])
                highest[chunk] = max(highest.get(chunk, 0), 2 * int(found[2]) + odd + 1)
    return sum(highest.values()) + blocks


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file of a run's state and spool."""
    files = (p for folder in sorted(run_dir.glob("work-*")) for p in sorted(folder.rglob("*")))
    return {str(p.relative_to(run_dir)): p.read_bytes() for p in files if p.is_file()}
