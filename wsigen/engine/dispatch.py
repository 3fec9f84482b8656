"""Tasks of one run on a cluster: how many are in flight, how often each may fail, and when that is too often."""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wsigen.engine.cluster import Cluster, SchedulerLostError, WorkerLostError
from wsigen.engine.stage import Notes
from wsigen.errors import DamagedChunkError, RunError, WsigenError
from wsigen.manifest import FAILURES
from wsigen.tasks.context import RunContext
from wsigen.tasks.perform import Report, Task, perform

TRIES = 3
"""Times a task may fail before it is given up; the rest of its stage is finished, then the run stops and names its chunk."""

GIVEN_UP = 8
"""Tasks given up after which a run stops at once: this is no bad chunk but a bad worker, disk or model."""

LOSSES = 10
"""Workers a task may lose: more than its own errors, as a worker mostly dies of something else; a task that kills every worker
it is given (for want of memory, say) still comes to an end."""

LOOK_S = 10.0
"""Seconds without a task's end after which the driver looks around: are there workers, is the run still its own?"""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that all tasks meet alike: the disk or the user's share of it is full."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A task that failed too often, and why."""

    task: Task
    reason: str


@dataclass(slots=True)
class Dispatcher:
    """Sends tasks of one run to a cluster and takes their results back.

    Attributes
    ----------
    window:
        Tasks in flight per worker slot.
    threads:
        Torch threads of each worker.
    confirm:
        Makes sure that the run is still this driver's, before much of it is deleted (RunError if it is not).
    tries, losses:
        How often each task failed, and how many workers it lost.
    given_up:
        Tasks that are not tried again by this driver.
    told:
        Differences between workers and the run that a person was told of.
    notes:
        Where a person is told what happens.
    """

    run: RunContext
    cluster: Cluster
    window: int = 2
    threads: int | None = None
    confirm: Callable[[], None] = lambda: None
    tries: Counter[Task] = field(default_factory=Counter)
    losses: Counter[Task] = field(default_factory=Counter)
    given_up: list[GivenUp] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    notes: Notes = field(default_factory=Notes)

    @property
    def full(self) -> bool:
        """Whether enough tasks are in flight."""
        return self.in_flight >= max(1, self.window * max(1, self.cluster.workers))

    @property
    def in_flight(self) -> int:
        """Tasks sent and not yet taken back."""
        return self.cluster.in_flight

    def send(self, task: Task) -> None:
        """Submit a task."""
        self.cluster.submit(task, perform, self.run.folder.name, self.run.manifest.hash, self.threads, task)

    def take(
        self, idle: Callable[[], None] = lambda: None
    ) -> tuple[Task, Report | DamagedChunkError | WorkerLostError | GivenUp]:
        """Wait for a task; errors that neither more tries nor other workers can mend are raised.

        Parameters
        ----------
        idle:
            Called every ``LOOK_S`` seconds in which no task ends.
        """
        while (taken := self.cluster.take(LOOK_S)) is None:
            idle()
        task, result = taken
        if isinstance(result, Report | DamagedChunkError):
            return task, result
        if isinstance(result, WsigenError):
            raise result
        if isinstance(result, SchedulerLostError):
            return task, result  # no worker died of it
        lost = isinstance(result, WorkerLostError)
        count, limit = (self.losses, LOSSES) if lost else (self.tries, TRIES)
        count[task] += 1
        if count[task] < limit:
            return task, WorkerLostError(str(result))
        advice = "is there enough memory, and a wall time or lifetime of the workers above the time of one task?"
        what = f"lost {limit} workers ({advice})" if lost else f"failed {limit} times"
        self.given_up.append(GivenUp(task, f"{task.name} {what}; last: {type(result).__name__}: {result}{_raised_in(result)}"))
        self._keep_traceback(task, result)
        if lost or len(self.given_up) >= GIVEN_UP or getattr(result, "errno", None) in FULL:
            self.demand_none_given_up()
        return task, self.given_up[-1]

    def demand_none_given_up(self) -> None:
        """Stop if a task was given up (RunError): a stage has done all it could without it."""
        if self.given_up:
            more = f" (and {len(self.given_up) - 1} more tasks)" if len(self.given_up) > 1 else ""
            advice = f"What is finished is kept: mend the cause, then resume the run (tracebacks: {FAILURES} in its directory)"
            raise RunError(f"{self.given_up[0].reason}{more}. {advice}")

    def new_differences(self, report: Report) -> list[str]:
        """What of a worker differs from the run and was not told before."""
        found = [each for each in report.differences if each not in self.told]
        self.told.update(found)
        return found

    def _keep_traceback(self, task: Task, error: Exception) -> None:
        """Put the worker's traceback beside those before it in the run's directory, if the disk lets us."""
        text = "".join(traceback.format_exception(error))
        folder = self.run.folder
        with suppress(OSError):
            before = folder.read(FAILURES) if folder.has(FAILURES) else b""
            folder.write(FAILURES, before + f"{self.run.manifest.run_id} {task.name}\n{text}\n".encode())

    def drain(self) -> None:
        """Let all tasks in flight end, whatever they bring."""
        while self.cluster.in_flight:
            if self.cluster.take(LOOK_S) is None:
                self.confirm()


def _raised_in(error: Exception) -> str:
    """Where a worker's error comes from, as `` (in file.py:12)``."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" (in {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
