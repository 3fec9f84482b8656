"""What this machine is and lets a process do with memory: limits of control groups, and glibc's way with freed memory.

Containers and queues limit memory by control groups, which the machine's own figures do not show. A group's limit holds for
all in it and below it, so every group from the process's own up to the root counts. Idle page cache (``inactive_file``) is
given back when it is needed and does not count as used.

A decoder's layers take tens of megabytes each. By default glibc maps every such block, unmaps it when it is freed, and gives
every thread a heap of its own, which cannot hold one: half of the time of decoding on a CPU was the system's. dask's nannies
make it worse: they start workers that give back whatever is above 64 KiB. (Measured: docs/benchmarks.md.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsigen.base.errors import ResourceError

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")

_NO_LIMIT = 2**60
"""Version 1 writes a number near 2**63 where there is no limit."""

KEEP, LARGEST, LARGEST_OLD = 2**29, 2**30, 2**25
"""Free bytes at a heap's end that it keeps; blocks up to ``LARGEST`` come from it. glibc before 2.35 takes no threshold above
32 MiB."""

_NUMBERS = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_ARENA_MAX": -8}
"""``mallopt``'s numbers (malloc.h) of the variables that glibc reads when a process starts."""

_NANNYS = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What dask starts its workers with."""


@dataclass(frozen=True, slots=True)
class _Version:
    """Names of one cgroup version's files, and of the field of ``memory.stat`` that counts idle page cache."""

    limit: str
    used: str
    idle: str


_V1 = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Version("memory.max", "memory.current", "inactive_file")


def demand_posix() -> None:
    """Refuse Windows, which has no locks that end with their process (ResourceError)."""
    if sys.platform == "win32":
        raise ResourceError("wsigen runs on Linux and macOS; on Windows use WSL2: 'wsl --install', then see README")


def memory_limit(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """Bytes that all processes of the tightest group around this one may use together; None without a limit."""
    return min((limit for limit, _ in _limits(membership, root)), default=None)


def memory_left(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """Bytes that may still be taken under the tightest limit, 0 or more; None without a limit."""
    return min((max(0, limit - used) for limit, used in _limits(membership, root)), default=None)


def _limits(membership: Path, root: Path) -> Iterator[tuple[int, int]]:
    """Limit and used bytes of every limited group that this process is in."""
    for folder, version in _groups(membership, root):
        limit = _number(folder / version.limit)
        if limit is not None and limit < _NO_LIMIT:
            yield limit, max(0, (_number(folder / version.used) or 0) - _idle(folder, version))


def _groups(membership: Path, root: Path) -> Iterator[tuple[Path, _Version]]:
    """Folders of this process's groups of either version, up to the root.

    In a container the path may be the host's; then only the root exists, where its own group is mounted.
    """
    for line in _read(membership).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            top, version = root / "memory", _V1
        elif number == "0" and not controllers:
            top, version = root, _V2
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents) if inside.parts else (inside,):
            yield top / part, version


def _idle(folder: Path, version: _Version) -> int:
    fields = (line.split() for line in _read(folder / "memory.stat").splitlines())
    return next((int(words[1]) for words in fields if len(words) == 2 and words[0] == version.idle), 0)


def _number(path: Path) -> int | None:
    """The number in a file; None if it says ``max``, or cannot be read."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def kept_environment() -> dict[str, int]:
    """glibc's variables for processes that are started: one heap for all threads, which keeps what is freed."""
    kind, version = platform.libc_ver()
    old = kind == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < (2, 35)
    return {
        "MALLOC_MMAP_THRESHOLD_": LARGEST_OLD if old else LARGEST,
        "MALLOC_TRIM_THRESHOLD_": KEEP,
        "MALLOC_ARENA_MAX": 1,
    }


def keep_freed_memory() -> None:
    """Set the same in this process, for its whole life; threads that are there already keep their own heap.

    What the user set in the environment stays. Nothing happens where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        set_options(mallopt, os.environ)


def set_options(mallopt: Callable[[int, int], int], environment: Mapping[str, str]) -> None:
    """Call glibc's ``mallopt`` (1: done, 0: refused) for all that ``environment`` leaves open.

    The largest block comes first: if it is refused, keeping more at the heap's end would only stop glibc from adapting it.
    """
    mine = {name for name in _NUMBERS if environment.get(name) not in (None, _NANNYS.get(name))}
    first, *others = _NUMBERS
    taken = first in mine or any(mallopt(_NUMBERS[first], size) for size in (LARGEST, LARGEST_OLD))
    for name in others if taken else []:
        if name not in mine:
            mallopt(_NUMBERS[name], kept_environment()[name])
