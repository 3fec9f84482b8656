"""Tasks of one run on a cluster: how many are in flight, how often each may fail, and when that is too often."""

from __future__ import annotations

import errno
import heapq
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from wsigen.base.errors import DamagedChunkError, ModelOutputError, RunError, UnfitWorkerError, WsigenError
from wsigen.run.engine.cluster import Cluster, SchedulerLostError, WorkerLostError
from wsigen.run.engine.stage import Notes
from wsigen.run.spec import FAILURES, RunSpec
from wsigen.run.tasks.context import RunContext
from wsigen.run.tasks.perform import Report, Task, perform

TRIES = 3
"""Times a task may fail before it is given up; the rest of its stage is finished, then the run stops and names its chunk."""

GIVEN_UP = 8
"""Tasks given up after which a run stops at once: this is no bad chunk but a bad worker, disk or model."""

LOSSES = 10
"""Workers a task may lose: more than its own errors, as a worker mostly dies of something else; a task that kills every worker
it is given (for want of memory, say) still comes to an end."""

LOOK_S = 10.0
"""Seconds without a task's end after which the driver looks around: are there workers, is the run still its own?"""

FIRST_WAIT_S = 0.5
"""Seconds until what failed is tried for the second time; every wait is as long as all before it together."""

PATIENCE_S = 120.0
"""Seconds of waiting in all: a file server or an object store that is started again is back by then."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that all tasks meet alike: the disk or the user's share of it is full."""

LASTING = (*FULL, errno.EFBIG, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSYS, errno.EISDIR, errno.ENOTDIR)
"""Errors of a place that waiting does not end; refused access is another."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A task that failed too often, and why."""

    task: Task
    reason: str


Outcome = tuple[Task, Report | DamagedChunkError | WorkerLostError | GivenUp]
"""A task that ended, and how; one that a worker lost, or that may be tried again, is to be sent again."""


@dataclass(slots=True)
class Dispatcher:
    """Sends tasks of one run to a cluster and takes their results back.

    Attributes
    ----------
    window : int
        Tasks in flight per slot.
    threads : int or None
        Torch threads of each worker.
    calls_at_once : int or None
        Tasks of one process that may call the model at the same time; None: all it has.
    confirm : callable
        Makes sure that the run is still this driver's, before much of it is deleted (RunError if it is not).
    tries, losses : Counter
        How often each task failed, and how many workers it lost.
    given_up : list of GivenUp
        Tasks that are not tried again by this driver.
    reported : set of str
        Differences between workers and the run that a person knows of.
    notes : Notes
        What happens, for a person.
    waited : dict of Task to float
        Seconds for which a task was put off while the store did not answer.
    """

    run: RunContext
    cluster: Cluster
    window: int = 2
    threads: int | None = None
    calls_at_once: int | None = None
    confirm: Callable[[], None] = lambda: None
    tries: Counter[Task] = field(default_factory=Counter)
    losses: Counter[Task] = field(default_factory=Counter)
    given_up: list[GivenUp] = field(default_factory=list)
    reported: set[str] = field(default_factory=set)
    notes: Notes = field(default_factory=Notes)
    waited: dict[Task, float] = field(default_factory=dict)
    _not_before: dict[Task, float] = field(default_factory=dict)
    _put_off: list[tuple[float, int, Task]] = field(default_factory=list)
    _sent: int = 0

    @property
    def full(self) -> bool:
        """Whether enough tasks are in flight."""
        return self.in_flight >= max(1, self.window * max(1, self.cluster.slots))

    @property
    def in_flight(self) -> int:
        """Tasks sent, or put off for a moment, and not yet taken back."""
        return self.cluster.in_flight + len(self._put_off)

    def send(self, task: Task) -> None:
        """Submit a task, now or when it was put off to."""
        due = self._not_before.pop(task, 0.0)
        if due > monotonic():
            self._sent += 1
            heapq.heappush(self._put_off, (due, self._sent, task))
            return
        spec = self.run.spec
        name = f"{task.kind}-run.{spec.run_id}-pass.{task.pass_index}-{task.ij[0]}.{task.ij[1]}-{task.step}"
        args = (self.run.folder.name, spec.hash, self.threads, task, self.calls_at_once)
        self.cluster.submit(task, perform, *args, name=name, model=task.calls_model)

    def take(self, idle: Callable[[], None] = lambda: None) -> Outcome:
        """Wait for a task; errors that neither more tries nor other workers repair are raised.

        Parameters
        ----------
        idle : callable
            Called every few seconds in which no task ends.
        """
        while True:
            while self._put_off and self._put_off[0][0] <= monotonic():
                self.send(heapq.heappop(self._put_off)[2])
            wait = min(LOOK_S, max(0.0, self._put_off[0][0] - monotonic())) if self._put_off else LOOK_S
            if taken := self.cluster.take(wait):
                return self._judged(*taken)
            idle()

    def _judged(self, task: Task, result: Report | Exception) -> Outcome:
        """What becomes of a task that ended so."""
        if isinstance(result, Report):
            self.waited.pop(task, None)
            return task, result
        if isinstance(result, DamagedChunkError):
            return task, result
        if isinstance(result, UnfitWorkerError):
            return task, self._without_worker(result)
        if isinstance(result, ModelOutputError):
            raise ModelOutputError(f"{task.name}: {result}")
        if isinstance(result, WsigenError):
            raise result
        if isinstance(result, SchedulerLostError):
            return task, result  # no worker died of it
        if wait := _next_wait(self.waited.get(task, 0.0)) if _passes_by_itself(result) else 0.0:
            self.waited[task] = self.waited.get(task, 0.0) + wait
            self._not_before[task] = monotonic() + wait
            self.notes.add("store", f"{task.name}: {_described(result)}; tried again in {wait:.1f} s")
            return task, WorkerLostError(str(result))
        lost = isinstance(result, WorkerLostError)
        count, limit = (self.losses, LOSSES) if lost else (self.tries, TRIES)
        count[task] += 1
        if count[task] < limit:
            happened = "its worker was lost" if lost else _described(result)
            self.notes.add("again", f"{task.name}: {happened}; it is done again ({count[task]} of at most {limit} times)")
            return task, WorkerLostError(str(result))
        advice = "is there enough memory, and a wall time or lifetime of the workers above the time of one task?"
        what = f"lost {limit} workers ({advice})" if lost else f"failed {limit} times"
        self.given_up.append(GivenUp(task, f"{task.name} {what}; last: {_described(result)}"))
        self._keep_traceback(task, result)
        if lost or len(self.given_up) >= GIVEN_UP or getattr(result, "errno", None) in FULL:
            self.demand_none_given_up()
        return task, self.given_up[-1]

    def _without_worker(self, unfit: UnfitWorkerError) -> WorkerLostError:
        """Go on without a worker that cannot take part; if there is no other, or it is the run that is gone, stop."""
        self.confirm()  # of a run that another driver has taken over or cleared no worker can open anything
        patiently(self._demand_run, self.notes)
        if not self.cluster.leave_out(unfit.worker):
            raise RunError(
                f"{unfit}; there is no other worker in its place: repair this one ('wsigen worker-check' looks at all), then "
                "resume the run"
            )
        self.notes.add(f"unfit {unfit}", f"{unfit}; the run goes on without it")
        return WorkerLostError(str(unfit))

    def _demand_run(self) -> None:
        """Make sure that this process can open the run: what it cannot either is no worker's fault (RunError, OSError)."""
        here = RunSpec.load(self.run.folder)
        if here.hash != self.run.spec.hash:
            raise RunError(f"{self.run.folder.name}: holds another run now; nothing more is done for this one")
        if not Path(here.model).is_dir():
            raise RunError(f"{here.model}: the model is gone; restore it, then resume the run")

    def demand_none_given_up(self) -> None:
        """Stop if a task was given up (RunError): a stage has done all it could without it."""
        if self.given_up:
            more = f" (and {len(self.given_up) - 1} more tasks)" if len(self.given_up) > 1 else ""
            advice = (
                f"What is finished is kept: remove the cause, then resume the run (tracebacks: {FAILURES} in its directory)"
            )
            raise RunError(f"{self.given_up[0].reason}{more}. {advice}")

    def new_differences(self, report: Report) -> list[str]:
        """What of a worker differs from the run and was not reported before."""
        new = [difference for difference in report.differences if difference not in self.reported]
        self.reported.update(new)
        return new

    def _keep_traceback(self, task: Task, error: Exception) -> None:
        """Put the worker's traceback beside those before it in the run's directory, if the disk lets us."""
        text = "".join(traceback.format_exception(error))
        folder = self.run.folder
        with suppress(OSError):
            before = folder.read(FAILURES) if folder.has(FAILURES) else b""
            folder.write(FAILURES, before + f"{self.run.spec.run_id} {task.name}\n{text}\n".encode())

    def drain(self) -> None:
        """Let all tasks in flight end, whatever they bring."""
        self._put_off.clear()
        while self.cluster.in_flight:
            _ = self.cluster.slots  # nobody waits for ever for workers that do not come
            if self.cluster.take(LOOK_S) is None:
                with suppress(OSError):  # asked again soon
                    self.confirm()


def _described(error: Exception) -> str:
    """A worker's error: its kind, its words, where in the code it was raised and on which machine."""
    frames = traceback.extract_tb(error.__traceback__)
    raised = [f"in {Path(frames[-1].filename).name}:{frames[-1].lineno}"] if frames else []
    where = ", ".join([*raised, *getattr(error, "__notes__", [])])
    return f"{type(error).__name__}: {error}{f' ({where})' if where else ''}"


def _passes_by_itself(error: Exception) -> bool:
    """Whether an error is of a kind that a store has for a moment: a network that is away, a server that starts again."""
    return isinstance(error, OSError) and not isinstance(error, PermissionError) and error.errno not in LASTING


def _next_wait(waited_s: float) -> float:
    """Seconds to wait before the next try, after ``waited_s`` in all; 0 if patience is at its end."""
    return max(0.0, min(max(FIRST_WAIT_S, waited_s), PATIENCE_S - waited_s))


def patiently(act: Callable[[], None], notes: Notes) -> None:
    """Do something with the store again and again until it answers, or patience is at its end (then the error is raised)."""
    waited = 0.0
    while True:
        try:
            return act()
        except OSError as error:
            wait = _next_wait(waited) if _passes_by_itself(error) else 0.0
            if not wait:
                raise
            notes.add("store", f"the store does not answer ({error}); tried again in {wait:.1f} s")
            sleep(wait)
            waited += wait
