"""Where the work is done: how many workers, of how many threads and tasks, or whose."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsigen.run.config import RunConfig

if TYPE_CHECKING:
    from wsigen.run.engine.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Workers:
    """Where the work is done: execution settings only, none of which changes a pixel."""

    count: int
    processes: bool
    threads: int
    scheduler: str | None
    window: int
    accelerated: bool = False
    tasks_at_once: int = 1

    @property
    def calls_at_once(self) -> int | None:
        """Tasks of one process that may call the model at the same time; None: all it has."""
        if self.scheduler is not None:
            return 1 if self.accelerated else None
        return 1 if self.processes else self.count

    def cluster(self) -> AbstractContextManager[Cluster]:
        """Start them, or connect to them."""
        from wsigen.run.engine.opening import open_cluster

        return open_cluster(self.count, self.processes, self.scheduler, self.accelerated, self.tasks_at_once)

    @classmethod
    def of(cls, config: RunConfig) -> Workers:
        """Fill in defaults: one single-threaded worker per core, as threads of this process; one worker of two tasks a GPU."""
        accelerated = not config.device.startswith("cpu")
        count = config.workers or (1 if accelerated else usable_cores())
        threads = config.threads or 1
        tasks_at_once = config.tasks_at_once or (2 if accelerated else 1)
        return cls(count, config.processes, threads, config.scheduler, config.window, accelerated, tasks_at_once)


def usable_cores() -> int:
    """Cores this process may use: a queue or a container may leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
