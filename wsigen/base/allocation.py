"""Memory that a process keeps between model calls: glibc would give it back at once, and fetch it anew, zeroed, each time.

A decoder's layers take tens of megabytes each. Unless told otherwise glibc maps every such block and unmaps it when it is
freed, and gives every thread a heap of its own, which cannot hold one: half of the time of decoding on a CPU was the system's.
dask's nannies make it worse: they start workers that give back whatever is above 64 KiB. (Measured: docs/benchmarks.md.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Mapping

KEEP, LARGEST, LARGEST_OLD = 2**29, 2**30, 2**25
"""Free bytes at a heap's end that it keeps; blocks up to ``LARGEST`` come from it. glibc before 2.35 takes no threshold above
32 MiB."""

_NUMBERS = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_ARENA_MAX": -8}
"""``mallopt``'s numbers (malloc.h) of the variables that glibc reads when a process starts."""

_NANNYS = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What dask starts its workers with."""


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
