"""dask's client, as the engine sees it: calls out, results in (``engine.workers`` makes one).

The engine sees futures that bring a small report or an error, and never a dask graph: with one graph of all tasks nothing would
run for minutes and the driver would hold gigabytes. Only this module, ``engine.workers`` and ``engine.local`` know dask.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from wsigen.base.errors import ResourceError, UnfitWorkerError, WsigenError
from wsigen.run.engine.queue import Jobs
from wsigen.run.engine.stage import Notes

T = TypeVar("T")

AWAY_S = 60.0
"""Seconds a scheduler may be away before the run stops (and can be resumed)."""

WORKERS_S = 3600.0
"""Seconds without a worker that could do what is left, after which a run stops (and can be resumed); jobs of a queue, which may
wait there for days, are waited for without end."""

GPU = "GPU"
"""dask's resource of workers with an accelerator: ``dask worker ... --resources GPU=1``."""

_GPU_PARTS = 1024
"""A task takes a whole number of such parts of a GPU: sums of them are exact, so that what was taken comes back in full."""

POLL_S = 0.2
COUNT_S = 1.0
"""Seconds for which a count of the workers holds: asked anew for every task, it would be most of what a scheduler does."""

RENEW_S = 10.0
"""Seconds between two looks at the jobs of a queue."""


class WorkerLostError(Exception):
    """A worker died or was cut off while it held a task; the task can be given to another."""


class SchedulerLostError(WorkerLostError):
    """The scheduler left with the task; whether any worker ever began it nobody knows."""


class Size(NamedTuple):
    """Threads of a worker, and the GPUs it declares."""

    threads: int
    gpus: int


class Cluster:
    """Tasks out, results in.

    Parameters
    ----------
    connect : callable
        Makes a ``distributed.Client``; called again if the scheduler went away and came back.
    jobs : Jobs or None
        The jobs of a queue that are the workers, if they are.
    accelerated : bool
        Tasks that call the model need an accelerator: if any worker declares the resource ``GPU``, they go to such workers
        alone, ``tasks_at_once`` at a time for each GPU.
    tasks_at_once : int
        Threads that share an accelerator: while one task calls the model, others read and write.

    Attributes
    ----------
    notes : Notes
        What happens to scheduler and workers, for a person.
    priority : int
        Of the tasks sent from now on: where several runs share workers, those of the higher number go first.
    """

    def __init__(
        self, connect: Callable[[], Any], jobs: Jobs | None = None, accelerated: bool = False, tasks_at_once: int = 1
    ) -> None:
        self.notes = Notes()
        self.priority = 0
        self._connect = connect
        self._jobs, self._refused = jobs, ""
        self._accelerated, self._declared = accelerated, False
        self._tasks_at_once = tasks_at_once
        self._lost: deque[Any] = deque()
        self._labels: dict[Any, Any] = {}
        self._slots, self._workers = 0, 0
        self._known: frozenset[str] = frozenset()
        self._counted, self._renewed = -COUNT_S, monotonic()
        self._without: float | None = None
        """Since when there is no slot."""
        self._use(connect())

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not yet taken back."""
        return len(self._labels) + len(self._lost)

    @property
    def slots(self) -> int:
        """Tasks that call the model and can be under way at the same time, now or up to a second ago.

        Raises
        ------
        ResourceError
            If there was none for ``WORKERS_S``, and no queue may bring any.
        """
        if monotonic() - self._counted >= COUNT_S:
            before, known = self._slots, self._known
            self._slots, self._workers = self._count()
            self._counted = monotonic()
            if self._slots:
                self._without = None
                if left := len(known - self._known):
                    self.notes.add("left", f"{left} worker{'s' if left > 1 else ''} left; {len(self._known)} there now")
            else:
                self._wait_for_workers(left=before > 0)
        return self._slots

    @property
    def workers(self) -> int:
        """Those of them that can compute at the same time: cores (or groups of threads), or GPUs."""
        return self._workers if self.slots else 0

    def _wait_for_workers(self, left: bool) -> None:
        """Say once what is waited for, and not for ever."""
        wanted = f"worker with the resource {GPU}" if self._declared else "worker"
        limit = "" if self._jobs else f", {WORKERS_S / 60:.0f} min at most"
        now = monotonic()
        if self._without is None:
            self._without = now
            if left:
                self.notes.add("workers", f"no {wanted} is left; waiting for others{limit}")
        elif self._jobs is None and now - self._without >= WORKERS_S:
            raise ResourceError(f"no {wanted} for {WORKERS_S / 60:.0f} min; start some, then resume the run")

    def submit(self, label: Any, function: Callable[..., Any], *args: Any, name: str = "task", model: bool = False) -> None:
        """Send a call to a worker; its result comes back from ``take`` together with ``label``.

        Parameters
        ----------
        name : str
            What scheduler and workers call it in their logs.
        model : bool
            Whether it calls the model.
        """
        needed = {GPU: _GPU_PARTS // self._tasks_at_once / _GPU_PARTS} if model and self._declared else None
        key = f"{name}-{uuid4().hex}"  # a key that was used before would bring the result of then
        future = self._ask(
            lambda client: client.submit(
                _call_named, function, *args, key=key, pure=False, retries=0, resources=needed, priority=self.priority
            )
        )
        self._labels[future] = label
        self._running.add(future)

    def take(self, wait_s: float) -> tuple[Any, Any | Exception] | None:
        """Wait for any task and return its label and its result, or the exception it ended with; None if none ends in time."""
        self._renew_jobs()
        if self._lost:
            return self._lost.popleft(), SchedulerLostError("the scheduler went away")
        end = monotonic() + wait_s
        while not self._running.has_ready():
            if monotonic() >= end:
                return None
            with self._running.thread_condition:
                self._running.thread_condition.wait(min(0.1, wait_s))  # as its own iterator does, which knows no time limit
        future = next(self._running)
        label = self._labels.pop(future)
        try:
            return label, future.result()
        except Exception as error:
            return label, _translated(error)
        finally:
            future.release()

    def _there(self) -> dict[str, dict[str, Any]]:
        """What the scheduler knows of each worker, by address.

        The client's own ``scheduler_info`` answers with what it knew before, and without workers, where the connection breaks.
        """
        answer = self._ask(lambda client: client.sync(client.scheduler.identity, n_workers=-1))
        return dict(answer["workers"])

    def sizes(self) -> dict[str, Size]:
        """Threads and declared GPUs of every worker, by its address."""
        return {name: Size(int(worker["nthreads"]), _gpus_of(worker)) for name, worker in self._there().items()}

    def _count(self) -> tuple[int, int]:
        """Slots and workers (see there)."""
        if not self._accelerated:
            there: Mapping[str, Any] = self._ask(lambda client: client.nthreads())
            threads = list(there.values())
        else:
            there = self.sizes()
            self._declared = self._declared or any(size.gpus for size in there.values())
            threads = [self._slots_of(size) for size in there.values()]
        self._known = frozenset(there)
        return sum(threads), sum(-(-own // self._tasks_at_once) for own in threads)

    def _slots_of(self, size: Size) -> int:
        """Slots of a worker where tasks need an accelerator: of each GPU it declares, or of the one it is taken to have."""
        return min(size.threads, (size.gpus if self._declared else 1) * self._tasks_at_once)

    def _renew_jobs(self) -> None:
        """Submit jobs again whose wall time is over; looked after every few seconds, whether tasks end or not."""
        if self._jobs is None or monotonic() - self._renewed < RENEW_S:
            return
        self._renewed = monotonic()
        there = self._there().values()
        try:
            ended = self._jobs.renew({str(worker["name"]) for worker in there})
        except ResourceError as error:
            if str(error) != self._refused:
                self.notes.add("jobs", f"{error}; tried again every {RENEW_S:.0f} s")
            self._refused = str(error)
            return
        self._refused = ""
        if ended:
            self.notes.add("jobs", f"{ended} job(s) of the queue ended; as many were submitted again")

    def leave_out(self, address: str) -> bool:
        """Go on without a worker, which is asked to end; False if none there is can take its place and no job may bring others.

        In the place of one with a GPU comes only another with a GPU, where tasks need one.
        """
        there = self._there()
        unfit = there.get(address, {})
        waiting = self._jobs is not None and self._jobs.leave_out(str(unfit.get("name", "")))
        needs_gpu = self._declared and _gpus_of(unfit) > 0
        others = [other for other, worker in there.items() if other != address and (_gpus_of(worker) or not needs_gpu)]
        if not waiting and not others:
            return False
        if address in there:
            self._ask(lambda client: client.retire_workers([address], close_workers=True))
            self._known -= {address}
        self._counted = -COUNT_S
        return True

    def close(self, patience_s: float) -> None:
        """Take leave of the scheduler."""
        self._client.close(timeout=patience_s)

    def _use(self, client: Any) -> None:
        from distributed import as_completed

        self._client = client
        self._running = as_completed(loop=client.loop)

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Ask the scheduler; if it does not answer, wait for it to come back.

        Raises
        ------
        ResourceError
            If it does not come back, or is there and refuses.
        """
        end = monotonic() + AWAY_S
        while True:
            try:
                if self._client.status == "running":
                    return question(self._client)
                self.notes.add("away", f"the scheduler is away; waiting for it, {AWAY_S:.0f} s at most")
                if self._client.status != "connecting":
                    self._reconnect()
            except (OSError, TimeoutError, RuntimeError, ResourceError) as error:
                sleep(POLL_S)  # a client hears a moment later than its question that the scheduler left
                if self._client.status == "running" and not isinstance(error, OSError):
                    raise ResourceError(f"the scheduler refuses a request ({type(error).__name__}: {error})") from None
                if monotonic() > end:
                    raise ResourceError(f"the scheduler went away ({error}); start it again, then resume the run") from None
            if monotonic() > end:
                raise ResourceError("the scheduler went away; start it again, then resume the run")
            sleep(POLL_S)

    def _reconnect(self) -> None:
        """A new client; what the old one had sent is lost."""
        client = self._connect()
        self._counted = -COUNT_S
        self._known = frozenset()
        self.notes.add("scheduler", f"the scheduler is there again; {len(self._labels)} task(s) in flight are sent again")
        self._lost.extend(self._labels.values())
        self._labels.clear()
        self._use(client)

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
        self._lost.clear()
        client = self._client
        self._use(client)  # what is cancelled is not taken back
        client.cancel(futures, force=True)


def _gpus_of(worker: Mapping[str, Any]) -> int:
    """GPUs that a worker declares."""
    return int(worker.get("resources", {}).get(GPU, 0))


def _call_named(function: Callable[..., T], *args: Any) -> T:
    """Call a function on a worker; an error names the machine, and a worker that cannot take part its address."""
    try:
        return function(*args)
    except Exception as error:
        error.add_note(f"on {socket.gethostname()}")
        if isinstance(error, UnfitWorkerError):
            from distributed import get_worker

            error.worker = get_worker().address
        raise


def _translated(error: Exception) -> Exception:
    """Tell a lost worker from an error of the task itself."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    if isinstance(error, WsigenError):
        return error
    if isinstance(error, CancelledError):  # we cancel nothing that is waited for: the scheduler went away, or began anew
        return SchedulerLostError(str(error))
    if isinstance(error, KilledWorker | CommClosedError):
        return WorkerLostError(str(error))
    return error
