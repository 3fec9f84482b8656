"""Memory that control groups allow this process: what containers and queues limit, and the machine does not know of.

A group's limit holds for all in it and below it, so every group from the process's own up to the root counts. Page cache that
lies idle (``inactive_file``) is given back when it is needed and does not count as used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")

_NO_LIMIT = 2**60
"""Version 1 writes a number near 2**63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class Version:
    """Names of one version's files, and of the field of ``memory.stat`` that counts idle page cache."""

    limit: str
    used: str
    idle: str


V1 = Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = Version("memory.max", "memory.current", "inactive_file")


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


def _groups(membership: Path, root: Path) -> Iterator[tuple[Path, Version]]:
    """Folders of this process's groups of either version, up to the root.

    In a container the path that is told may be the host's; then only the root exists, where its own group is mounted.
    """
    for line in _read(membership).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            top, version = root / "memory", V1
        elif number == "0" and not controllers:
            top, version = root, V2
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents) if inside.parts else (inside,):
            yield top / part, version


def _idle(folder: Path, version: Version) -> int:
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
