"""From settings to workers: threads of this process, processes of this machine, those of a scheduler, or jobs of a queue."""

from __future__ import annotations

import ast
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsigen.base.errors import ConfigError, ResourceError
from wsigen.base.machine import keep_freed_memory, kept_environment
from wsigen.run.config import RunConfig
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.queue import Jobs, is_queue_file, submit_jobs
from wsigen.storage.scratch import Scratch

LEAVE_S = 10.0
"""Seconds until workers of a cluster of our own are left to themselves; one if the user is waiting."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Where the work is done: execution settings only, none of which changes a pixel.

    Attributes
    ----------
    count : int
        Local workers.
    processes : bool
        They are processes of their own instead of threads of this one.
    threads : int
        torch's, of each.
    scheduler : str or None
        Address (``tcp://host:8786``) or settings file (``*.yaml``) of workers elsewhere.
    window : int
        Tasks in flight for each that can be under way.
    accelerated : bool
        The model runs on no CPU.
    tasks_at_once : int
        Tasks of a worker, one of which calls the model while the others read and write.
    """

    count: int
    processes: bool
    threads: int = 1
    scheduler: str | None = None
    window: int = 2
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
        return open_cluster(self)

    def clusters(self) -> AbstractContextManager[Callable[[], Cluster]]:
        """The same for several runs at a time."""
        return open_clusters(self)

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


def demand_main_guard(workers: Workers) -> None:
    """Refuse worker processes to a script that would run in each of them again, to start workers of its own (ConfigError).

    A process that is spawned imports the script it comes from; only what is below ``if __name__ == "__main__":`` is left out.
    """
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    frame = inspect.currentframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is main.__dict__):
        frame = frame.f_back
    if not workers.processes or workers.scheduler is not None or script is None or frame is None:
        return
    try:
        tree = ast.parse(Path(script).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return  # no script: nothing is imported again
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    if not any(node.lineno <= frame.f_lineno <= (node.end_lineno or 0) for node in guards):
        raise ConfigError(
            f"{script}, line {frame.f_lineno}: with processes=True each worker runs this script again; "
            "put the call below 'if __name__ == \"__main__\":'"
        )


@contextmanager
def open_cluster(workers: Workers) -> Iterator[Cluster]:
    """Start a local cluster, or connect to a running scheduler, for one run (`open_clusters`)."""
    with open_clusters(workers) as another:
        yield another()


@contextmanager
def open_clusters(workers: Workers) -> Iterator[Callable[[], Cluster]]:
    """Start a local cluster, or connect to a running scheduler, whose CPU workers have the threads they have, each a worker.

    What it yields gives one more `Cluster` of the same workers whenever it is called: each run has its own, so that it gets its
    own results back.

    Raises
    ------
    ResourceError
        If no scheduler answers at the address, it wants certificates and none are configured, or no job can be submitted.
    ConfigError
        If the queue's settings are wrong.
    """
    import dask
    from distributed import Client

    from wsigen.run.engine.local import forget_servers, start_local

    for name in ("distributed", "distributed.worker", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the engine reports what goes wrong, with the chunk's name
    scheduler, accelerated = workers.scheduler, workers.accelerated
    nannies = dask.config.get(_NANNIES)
    if not accelerated:
        nannies = {**nannies, **kept_environment()}  # what the user's own environment says goes first
        if scheduler is None and not workers.processes:
            keep_freed_memory()  # before the workers' threads are there
    elsewhere = scheduler is not None and not is_queue_file(scheduler)  # such workers have folders of their own
    folder: AbstractContextManager[Path | None] = nullcontext() if elsewhere else Scratch("wsigen-workers-")
    with folder as scratch, dask.config.set({**_SETTINGS, _NANNIES: nannies} | ({_FOLDER: str(scratch)} if scratch else {})):
        own: Any = None
        jobs: Jobs | None = None
        if scheduler is None:
            own = start_local(workers.count, workers.processes, workers.tasks_at_once, str(scratch))
        elif is_queue_file(scheduler):
            jobs = submit_jobs(Path(scheduler))
            own = jobs.cluster

        def connect() -> Any:
            return _connect(str(scheduler)) if own is None else Client(own, set_as_default=False)

        alone = scheduler is not None and not accelerated
        clusters: list[Cluster] = []

        def another() -> Cluster:
            tasks_at_once = 1 if alone else workers.tasks_at_once
            clusters.append(Cluster(connect, jobs, accelerated and scheduler is not None, tasks_at_once))
            return clusters[-1]

        patience_s = LEAVE_S
        try:
            yield another
        except KeyboardInterrupt:
            patience_s = LEAVE_S if is_queue_file(scheduler or "") else 1.0  # jobs are to be taken back from their queue
            raise
        finally:
            # A task may outlive the patience of either; what ended the run matters, not how the workers take their leave.
            for cluster in clusters:
                with suppress(Exception):
                    cluster.close(patience_s)
            with suppress(Exception):
                if own is not None:
                    own.close(timeout=patience_s)
            forget_servers()


def _connect(address: str) -> Any:
    """A client of a running scheduler."""
    import dask
    from distributed import Client

    if address.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file", None):
        raise ResourceError(
            f"{address} wants certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE and those of docs/clusters.md"
        )
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ResourceError(f"no dask scheduler answers at {address} ({error}); start one with 'dask scheduler'") from None


_NANNIES = "distributed.nanny.pre-spawn-environ"
"""Variables of the environment that worker processes are started with."""

_FOLDER = "temporary-directory"
"""Where dask's processes write."""

_SETTINGS = {
    "distributed.comm.timeouts.connect": "10s",
    "distributed.scheduler.allowed-failures": 0,
    "distributed.admin.tick.limit": "60s",
    "distributed.worker.daemon": True,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.deploy.lost-worker-timeout": "3650d",
}
"""A worker's death is reported at once: the engine has its own limit of tries, and names the chunk. dask's watch over itself (a
profile every 10 ms, a tick every 20 ms, CPU and memory every 500 ms) is thinned out: it took 4.5 % of a core (measured).
Jobs of a queue that ended are ours to submit again (``queue.Jobs``), so its half of that is put off for ever."""
