"""Work in processes of their own, and what processes take."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest import mock

import psutil

from wsigen.run.engine.stage import Stage

P = ParamSpec("P")
T = TypeVar("T")


def in_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` gives, done by a new Python process that does nothing else: peaks of memory and first calls are its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def environment(changes: Mapping[str, str], without: tuple[str, ...] = ()) -> mock._patch_dict:
    """A context in which new processes have this environment: with ``changes``, ``without`` names that begin so."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(without or ("\0",))}
    return mock.patch.dict(os.environ, {**kept, **changes}, clear=True)


def peak_rss(pid: int | str = "self") -> int:
    """Highest resident set of a process (on Linux: of any) so far, bytes.

    ``ru_maxrss`` is not it on Linux: after a fork and exec it starts at the parent's.
    """
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def workers_of(pid: int) -> list[psutil.Process]:
    """Worker processes of a driver: what multiprocessing started for it, but for its resource tracker."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if any("spawn_main" in part for part in child.cmdline())]
    except psutil.Error:
        return []


class WorkerPeak:
    """A watcher that keeps the highest peak of this process's workers: it looks after every task."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, stage: Stage) -> None:
        """Look; a worker may end meanwhile."""
        for worker in workers_of(os.getpid()):
            with suppress(OSError, StopIteration):
                self.most = max(self.most, peak_rss(worker.pid))
