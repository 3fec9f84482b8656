"""A stage of a run as discrete events: the driver, dask's scheduler, the workers and the store they share.

The tasks, their order and what they wait for are the engine's own (`wsigen.run.engine.wavefront`); what each costs is given.
A task goes driver -> scheduler -> worker (reads, works, writes) -> scheduler -> driver. Driver and scheduler do one thing at a
time. A worker does one task at a time and takes the one that waits longest (dask steals work from busy workers). The store
serves all workers in the order they ask: a transfer takes as long as the worker's own line needs, or until the shared line has
carried what was asked for before.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from wsigen.base.geometry import ChunkGrid
from wsigen.run.engine.wavefront import HalfStep, Index, Wavefront


@dataclass(frozen=True, slots=True)
class Store:
    """A store of chunks: bytes/s that one worker gets, bytes/s of all together, and seconds that any request waits."""

    worker: float = 1e9
    total: float = 2e9
    latency: float = 0.002

    def alone(self, size: float, requests: float) -> float:
        """Seconds of a transfer that no other disturbs."""
        return requests * self.latency + size / min(self.worker, self.total)


@dataclass(frozen=True, slots=True)
class Platform:
    """Where a stage runs.

    Attributes
    ----------
    workers, window:
        Worker slots, and tasks in flight per slot (those above one wait).
    driver, scheduler:
        Seconds of either for a task, half of it before the task and half after.
    """

    workers: int
    window: int
    driver: float
    scheduler: float
    store: Store


@dataclass(frozen=True, slots=True)
class Load:
    """What a task costs: seconds of its worker, bytes and requests before and after."""

    work: float
    read: float = 0.0
    reads: float = 0.0
    written: float = 0.0
    writes: float = 0.0

    def alone(self, store: Store) -> float:
        """Seconds of the task on a worker that no other disturbs."""
        return self.work + store.alone(self.read, self.reads) + store.alone(self.written, self.writes)


Loads = Callable[[int, Index], Load]
"""What a half-step of a chunk costs."""


class Source(Protocol):
    """Tasks that become ready as others finish: a ``Wavefront``, or tasks that wait for nothing."""

    @property
    def finished(self) -> bool:
        """Whether all are done."""

    def next(self) -> HalfStep | None:
        """A task that may run now."""

    def finish(self, h: int, ij: Index) -> object:
        """A task is done."""


class Independent:
    """Tasks that wait for nothing."""

    def __init__(self, tasks: Iterable[Index]) -> None:
        self._waiting = deque(tasks)
        self._left = len(self._waiting)

    @property
    def finished(self) -> bool:
        """Whether all are done."""
        return self._left == 0

    def next(self) -> HalfStep | None:
        """The next one, as half-step 0."""
        return (0, self._waiting.popleft()) if self._waiting else None

    def finish(self, h: int, ij: Index) -> None:
        """One less."""
        self._left -= 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage took.

    Attributes
    ----------
    seconds:
        Wall time.
    tasks, work, size:
        How many tasks, the seconds of all on a worker that no other disturbs (and of these, the model's), bytes moved.
    """

    seconds: float
    tasks: int
    work: float
    size: float

    def bounds(self, platform: Platform, chain: float) -> dict[str, float]:
        """Seconds below which no platform of this kind gets, by what sets them; ``chain`` is the longest chain of tasks."""
        return {
            "work": self.work / platform.workers,
            "wavefront": chain,
            "driver": self.tasks * platform.driver,
            "scheduler": self.tasks * platform.scheduler,
            "store": self.size / platform.store.total,
        }


class _Line:
    """Something that does one thing at a time, in the order it is asked."""

    def __init__(self) -> None:
        self._free = 0.0

    def take(self, now: float, seconds: float) -> float:
        """When what is asked for now is done."""
        self._free = max(self._free, now) + seconds
        return self._free


ARRIVED, COMPUTED, WRITTEN, TOLD = range(4)


class _Fleet:
    """Workers, scheduler and store: tasks in, times of their results out."""

    def __init__(self, platform: Platform, loads: Loads) -> None:
        self._platform, self._loads = platform, loads
        self._scheduler, self._shared = _Line(), _Line()
        self._idle = platform.workers
        self._waiting: deque[HalfStep] = deque()
        self._events: list[tuple[float, int, int, HalfStep]] = []
        self._count = itertools.count()
        self.in_flight = self.tasks = 0
        self.work = self.size = 0.0

    def send(self, now: float, task: HalfStep) -> None:
        load = self._loads(*task)
        self.in_flight += 1
        self.tasks += 1
        self.work += load.alone(self._platform.store)
        self.size += load.read + load.written
        self._at(self._ask(now), ARRIVED, task)

    def take(self) -> tuple[float, HalfStep]:
        """The next result that reaches the driver."""
        while True:
            now, _, kind, task = heapq.heappop(self._events)
            if kind == TOLD:
                self.in_flight -= 1
                return now, task
            if kind == ARRIVED and self._idle:
                self._idle -= 1
                self._begin(now, task)
            elif kind == ARRIVED:
                self._waiting.append(task)
            elif kind == COMPUTED:
                load = self._loads(*task)
                self._at(self._moved(now, load.written, load.writes), WRITTEN, task)
            else:
                self._at(self._ask(now), TOLD, task)
                if self._waiting:
                    self._begin(now, self._waiting.popleft())
                else:
                    self._idle += 1

    def _begin(self, now: float, task: HalfStep) -> None:
        load = self._loads(*task)
        self._at(self._moved(now, load.read, load.reads) + load.work, COMPUTED, task)

    def _moved(self, now: float, size: float, requests: float) -> float:
        store = self._platform.store
        return max(now + store.alone(size, requests), self._shared.take(now, size / store.total))

    def _ask(self, now: float) -> float:
        """When the scheduler has passed a message on."""
        return self._scheduler.take(now, self._platform.scheduler / 2)

    def _at(self, time: float, kind: int, task: HalfStep) -> None:
        heapq.heappush(self._events, (time, next(self._count), kind, task))


def simulate(source: Source, loads: Loads, platform: Platform) -> Outcome:
    """Run all tasks of a stage, as the engine's loop sends and takes them (``wsigen.run.engine.run``)."""
    fleet = _Fleet(platform, loads)
    now = 0.0
    while not source.finished:
        while fleet.in_flight < platform.workers * platform.window and (ready := source.next()):
            now += platform.driver / 2
            fleet.send(now, ready)
        told, done = fleet.take()
        now = max(now, told) + platform.driver / 2
        source.finish(*done)
    return Outcome(now, fleet.tasks, fleet.work, fleet.size)


def longest_chain(grid: ChunkGrid, active: Iterable[Index], steps: int, loads: Loads, platform: Platform) -> float:
    """Seconds of the longest chain of half-steps, each of which waits for its neighbours' one before: with workers for all."""
    each = platform.driver + platform.scheduler
    chunks = list(active)
    there = set(chunks)
    near = {ij: [n for n in grid.neighbourhood(ij) if n in there] for ij in chunks}
    ends = dict.fromkeys(chunks, 0.0)
    for h in range(2 * steps + 1):
        ends = {ij: max(ends[n] for n in near[ij]) + loads(h, ij).alone(platform.store) + each for ij in chunks}
    return max(ends.values(), default=0.0)


def denoise(grid: ChunkGrid, active: Iterable[Index], steps: int, loads: Loads, platform: Platform) -> Outcome:
    """The wavefront of a pass."""
    return simulate(Wavefront(grid, active, steps), loads, platform)
