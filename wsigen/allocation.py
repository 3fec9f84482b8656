"""Memory that a process keeps between model calls: glibc would give it back at once, and fetch it anew, zeroed, each time.

A decoder's layers take tens of megabytes each. Unless told otherwise glibc maps every such block and unmaps it when it is
freed, and gives every thread a heap of its own, which cannot hold one: half of the time of decoding on a CPU was the system's.
dask's nannies make it worse: they start workers that give back whatever is above 64 KiB. (Measured: docs/benchmarks.md.)
"""

from __future__ import annotations

import ctypes
import sys

KEPT = {"MALLOC_ARENA_MAX": 1, "MALLOC_MMAP_THRESHOLD_": 2**30, "MALLOC_TRIM_THRESHOLD_": 2**29}
"""Variables of glibc, read when a process starts: one heap for all threads; blocks below 1 GiB come from it; it keeps up to
512 MiB that are free at its end."""

_NUMBERS = {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
"""The same in a running process: ``mallopt``'s numbers (malloc.h)."""


def keep_freed_memory() -> None:
    """Set `KEPT` in this process, for its whole life; threads that are there already keep their own heap.

    Nothing happens where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in KEPT.items():
            mallopt(_NUMBERS[name], value)
