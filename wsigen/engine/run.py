"""The loop: ready tasks out, results in, keys that are no longer needed deleted."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from wsigen.engine.cluster import WorkerLostError
from wsigen.engine.dispatch import TRIES, Dispatcher, GivenUp
from wsigen.engine.wavefront import HalfStep, Wavefront
from wsigen.errors import DamagedChunkError, RunError
from wsigen.store import PassState
from wsigen.tasks.perform import Kind, Report, Task


@dataclass(slots=True)
class Stage:
    """Progress of one stage: what a display shows.

    Attributes
    ----------
    name:
        E.g. ``"denoise patch"``.
    total, done, before:
        Tasks; ``before`` were done by an earlier driver of the run.
    calls:
        Model calls made by this driver.
    workers:
        Worker slots; 0 while a scheduler has no workers yet.
    seconds:
        Since the stage began.
    note:
        Something that a person should know; then the numbers say nothing.
    run:
        Id of the run.
    """

    name: str
    total: int
    done: int = 0
    calls: int = 0
    workers: int = 0
    seconds: float = 0.0
    finished: bool = False
    before: int = 0
    note: str = ""
    run: str = ""


class Watcher(Protocol):
    """Anything that wants to know how a run goes on."""

    def __call__(self, stage: Stage) -> None:
        """Look at a stage; called when it begins, after every task and once more at its end."""
        ...


def run_independent(dispatcher: Dispatcher, name: str, tasks: list[Task], total: int, watch: Watcher) -> None:
    """Run tasks that do not depend on each other (decoding, calibration)."""
    stage = _begin(dispatcher, name, total, total - len(tasks), watch)
    begin = monotonic()
    waiting = tasks[::-1]
    while waiting or dispatcher.cluster.in_flight:
        while waiting and not dispatcher.full:
            dispatcher.send(waiting.pop())
        task, result = dispatcher.take()
        if isinstance(result, DamagedChunkError):
            raise result
        if isinstance(result, WorkerLostError):
            waiting.append(task)
        elif isinstance(result, GivenUp):
            watch(Stage(name, 0, note=result.reason))
        else:
            _note(stage, result, dispatcher, begin)
            _tell_differences(name, result, dispatcher, watch)
            watch(stage)
    dispatcher.demand_none_given_up()
    stage.finished = True
    watch(stage)


def run_pass(dispatcher: Dispatcher, part: int, name: str, watch: Watcher) -> None:
    """Denoise one pass: from whatever its keys say is done to its last state.

    A damaged chunk is made again from what it was made from. If that is damaged or gone as well, the pass starts over.

    Raises
    ------
    RunError
        If a task failed three times (all that does not wait for it is done first), or a chunk turns out damaged however
        often it is made.
    DamagedChunkError
        If a chunk of an earlier pass is damaged.
    """
    damages: Counter[str] = Counter()
    for _ in range(TRIES):
        try:
            return _go_on_with_pass(dispatcher, part, name, watch, damages)
        except _BeyondMendingError as error:
            dispatcher.drain()
            dispatcher.confirm()
            dispatcher.run.passes[part].state.delete_all()
            watch(Stage(name, 0, note=f"{error}; what it was made from is gone, too: the pass starts over"))
    raise RunError(f"{name}: damaged beyond mending {TRIES} times; is the disk failing? Start anew on another one")


class _BeyondMendingError(Exception):
    """A chunk is damaged, and so is what it was made from."""


def _go_on_with_pass(dispatcher: Dispatcher, part: int, name: str, watch: Watcher, damages: Counter[str]) -> None:
    context = dispatcher.run.passes[part]
    state = context.state
    active = [(int(i), int(j)) for i, j in zip(*state.activity.nonzero(), strict=True)]
    record = state.record()
    wave = Wavefront(context.plan.grid, active, context.plan.steps, record)
    _sweep(wave, state)
    stage = _begin(dispatcher, name, wave.total, wave.completed, watch)
    begin = monotonic()
    while not wave.finished:
        while not dispatcher.full and (ready := wave.next()):
            dispatcher.send(_task_of(part, ready))
        if not dispatcher.cluster.in_flight:
            break  # all that is left waits for a task that was given up
        task, result = dispatcher.take()
        half_step = _half_step_of(task)
        if isinstance(result, Report):
            for h, ij in wave.finish(half_step, task.ij):
                state.delete(h, ij)
            _note(stage, result, dispatcher, begin)
            stage.done = wave.completed
            _tell_differences(name, result, dispatcher, watch)
        elif isinstance(result, GivenUp):
            watch(Stage(name, 0, note=result.reason))
        else:
            if isinstance(result, DamagedChunkError):
                _mend(wave, part, state, result, damages)
            wave.retry(half_step, task.ij)
        watch(stage)
    dispatcher.demand_none_given_up()
    _sweep(wave, state)
    stage.finished = True
    watch(stage)


def _sweep(wave: Wavefront, state: PassState) -> None:
    """Delete what no task reads: left by a driver that was killed, or written late by a worker that was thought dead."""
    state.delete_unfinished()
    for h, ij in wave.leftovers(state.record()):
        state.delete(h, ij)


def _mend(wave: Wavefront, part: int, state: PassState, damage: DamagedChunkError, damages: Counter[str]) -> None:
    """Let the damaged chunk be made again, or say that it cannot be; damage in an earlier pass is passed on."""
    if MADE_ONCE.fullmatch(damage.key):
        raise damage
    owner, h, ij = place_of_key(damage.key)
    if owner != part:
        raise damage
    if not wave.reached(h, ij):
        return  # another task met the same damage first: the chunk is being made again
    damages[damage.key] += 1
    if damages[damage.key] >= TRIES:
        raise RunError(
            f"{damage}; made {TRIES} times with the same result: the model gives no finite numbers here, or the disk fails"
        )
    if not wave.roll_back(h, ij):
        raise _BeyondMendingError(str(damage))
    state.delete(h, ij)


MADE_ONCE = re.compile(r"pass-(\d+)/(classes|activity|norm)")
"""What is made once per pass, and again by whoever drives the run."""

_KEY = re.compile(r"pass-(\d+)/(?:(latents|history)/c/(\d+)/0/(\d+)/(\d+)|partials/c/(\d+)/(\d+)/(\d+)/0/0/0)")


def place_of_key(key: str) -> tuple[int, int, tuple[int, int]]:
    """Turn the key of a chunk's state back into its pass, half-step and chunk.

    Raises
    ------
    RunError
        If it is another key (a class map, say), which no task can make again.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise RunError(f"{key}: damaged and nothing can make it again; delete the run directory and generate anew")
    part = int(found[1])
    if found[2]:
        return part, 2 * (int(found[3]) + (found[2] == "history")), (int(found[4]), int(found[5]))
    return part, 2 * int(found[6]) + 1, (int(found[7]), int(found[8]))


def _task_of(part: int, ready: HalfStep) -> Task:
    h, ij = ready
    step, odd = divmod(h - 1, 2)
    kind: Kind = "start" if h == 0 else "assemble" if odd else "denoise"
    return Task(kind, part, ij, max(0, step))


def _half_step_of(task: Task) -> int:
    return {"start": 0, "denoise": 2 * task.step + 1, "assemble": 2 * task.step + 2}[task.kind]


def _begin(dispatcher: Dispatcher, name: str, total: int, done: int, watch: Watcher) -> Stage:
    stage = Stage(name, total, done, workers=dispatcher.cluster.workers, before=done)
    watch(stage)
    return stage


def _note(stage: Stage, report: Report, dispatcher: Dispatcher, begin: float) -> None:
    stage.done += 1
    stage.calls += report.calls
    stage.workers = dispatcher.cluster.workers
    stage.seconds = monotonic() - begin


def _tell_differences(name: str, report: Report, dispatcher: Dispatcher, watch: Watcher) -> None:
    """Say once what of a worker differs from the run."""
    for difference in dispatcher.new_differences(report):
        watch(Stage(name, 0, note=f"{difference}; the slide may not come out the same again"))
