"""dask: the only module that knows it.

A client is always there: in-process threads by default, local worker processes, or the address of a running scheduler. The
engine sees futures that bring a small report or an error, and never a dask graph: with one graph of all tasks nothing would
run for minutes and the driver would hold gigabytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from wsigen.engine.queue import is_queue_file, submit_jobs
from wsigen.errors import ResourceError, WsigenError

T = TypeVar("T")


class WorkerLostError(Exception):
    """A worker died or was cut off while it held a task; the task can be given to another."""


class Cluster:
    """Tasks out, results in.

    Parameters
    ----------
    client:
        A ``distributed.Client``.
    """

    def __init__(self, client: Any) -> None:
        from distributed import as_completed

        self._client = client
        self._running = as_completed(loop=client.loop)
        self._labels: dict[Any, Any] = {}

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not yet taken back."""
        return len(self._labels)

    @property
    def workers(self) -> int:
        """Worker slots (threads of all workers) there are now."""
        return sum(self._client.nthreads().values())

    def submit(self, label: Any, function: Callable[..., Any], *args: Any) -> None:
        """Send a call to a worker; its result comes back from ``take`` together with ``label``."""
        future = self._client.submit(function, *args, pure=False, retries=0)
        self._labels[future] = label
        self._running.add(future)

    def take(self) -> tuple[Any, Any | Exception]:
        """Wait for any task and return its label and its result, or the exception it ended with."""
        future = next(self._running)
        label = self._labels.pop(future)
        try:
            return label, future.result()
        except Exception as error:
            return label, _translate(error)
        finally:
            future.release()

    def ask_all(self, function: Callable[..., T], *args: Any) -> dict[str, T]:
        """Call a function once on every worker; its answers by address.

        Raises
        ------
        ResourceError
            If a worker cannot answer, as it lacks wsigen or dies.
        """
        try:
            answers: dict[str, T] = self._client.run(function, *args, on_error="raise")
            return answers
        except Exception as error:
            raise ResourceError(
                f"a worker cannot answer ({type(error).__name__}: {error}); is this version of wsigen installed there?"
            ) from None

    def cancel(self) -> None:
        """Forget all tasks in flight."""
        futures = list(self._labels)
        self._labels.clear()
        self._client.cancel(futures, force=True)


def _translate(error: Exception) -> Exception:
    """Tell a lost worker from an error of the task itself."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    if isinstance(error, WsigenError):
        return error
    if isinstance(error, KilledWorker | CommClosedError | CancelledError):
        return WorkerLostError(str(error))
    return error


@contextmanager
def open_cluster(workers: int, processes: bool, scheduler: str | None) -> Iterator[Cluster]:
    """Start a local cluster, or connect to a running scheduler.

    Parameters
    ----------
    workers:
        Local workers of one thread each.
    processes:
        Workers are processes of their own instead of threads of this one.
    scheduler:
        Address (``tcp://host:8786``) or a queue's settings file (``*.yaml``); then the two others are not used.

    Raises
    ------
    ResourceError
        If no scheduler answers at the address, it wants certificates and none are configured, or no job can be submitted.
    ConfigError
        If the queue's settings are wrong.
    """
    import dask
    from distributed import Client

    for name in ("distributed", "distributed.worker", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the engine reports what goes wrong, with the chunk's name
    with dask.config.set(_SETTINGS):
        own: Any = None
        if scheduler is None:
            own = _local(workers, processes)
        elif is_queue_file(scheduler):
            own = submit_jobs(Path(scheduler))
        client = _connect(str(scheduler)) if own is None else Client(own, set_as_default=False)
        try:
            yield Cluster(client)
        finally:
            # A task may outlive the patience of either; what ended the run matters, not how the workers take their leave.
            for part in (client, own):
                with suppress(Exception):
                    if part is not None:
                        part.close(timeout=10)


def _local(workers: int, processes: bool) -> Any:
    """Workers on this machine: threads of this process, or processes that listen on loopback alone."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers if processes else 1,
        threads_per_worker=1 if processes else workers,
        processes=processes,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        host="127.0.0.1" if processes else None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    )


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


_SETTINGS = {
    "distributed.comm.timeouts.connect": "10s",
    "distributed.scheduler.allowed-failures": 0,
    "distributed.admin.tick.limit": "60s",
    "distributed.worker.daemon": True,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
"""A worker's death is told at once: the engine has its own limit of tries, and names the chunk. dask's own watch over itself
(a profile every 10 ms, a tick every 20 ms, CPU and memory every 500 ms) is thinned out: it took 4.5 % of a core (measured)."""
