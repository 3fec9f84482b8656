"""The loop: ready tasks out, results in, keys that are no longer needed deleted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from functools import partial
from time import monotonic

from wsigen.base.errors import DamagedChunkError, RunError
from wsigen.run.engine.cluster import WorkerLostError
from wsigen.run.engine.dispatch import TRIES, Dispatcher, GivenUp, Outcome, patiently
from wsigen.run.engine.stage import Notes, Stage, Watcher
from wsigen.run.engine.wavefront import HalfStep, Wavefront
from wsigen.run.keys import place_of_key
from wsigen.run.store import PassState
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.run.tasks.perform import Kind, Report, Task


class _Progress:
    """A stage on its way, as its watcher sees it."""

    def __init__(self, dispatcher: Dispatcher, name: str, total: int, done: int, watch: Watcher) -> None:
        self._dispatcher, self._watch, self._begin = dispatcher, watch, monotonic()
        self.stage = Stage(name, total, done, workers=dispatcher.cluster.workers, before=done)
        dispatcher.notes.tell = lambda text: watch(Stage(name, 0, note=text))
        watch(self.stage)

    def look(self) -> None:
        """Show how things stand, also while no task ends: the watcher may learn that the run is no longer ours."""
        self.stage.workers = self._dispatcher.cluster.workers
        self.stage.seconds = monotonic() - self._begin
        self._dispatcher.notes.flush()
        self._watch(self.stage)

    def take(self) -> Outcome:
        """The next task that ended; a report is counted, and a task given up is noted."""
        task, result = self._dispatcher.take(self.look)
        if isinstance(result, Report):
            self.stage.done += 1
            self.stage.calls += result.calls
            for difference in self._dispatcher.new_differences(result):
                self._dispatcher.notes.tell(f"{difference}; the slide may not come out the same again")
        elif isinstance(result, GivenUp):
            self._dispatcher.notes.tell(result.reason)
        return task, result

    def finish(self) -> None:
        """All that could be done is done (RunError if a task was given up)."""
        self._dispatcher.notes.flush(at_once=True)
        self._dispatcher.demand_none_given_up()
        self.stage.finished = True


def run_independent(dispatcher: Dispatcher, name: str, tasks: list[Task], total: int, watch: Watcher) -> None:
    """Run tasks that do not depend on each other (decoding, calibration)."""
    progress = _Progress(dispatcher, name, total, total - len(tasks), watch)
    waiting = deque(tasks)
    while waiting or dispatcher.in_flight:
        while waiting and not dispatcher.full:
            dispatcher.send(waiting.popleft())
        task, result = progress.take()
        if isinstance(result, DamagedChunkError):
            raise result
        if isinstance(result, WorkerLostError):
            waiting.append(task)  # behind all others: what hit it may be over by then
        progress.look()
    progress.finish()
    progress.look()


def run_pass(dispatcher: Dispatcher, index: int, name: str, watch: Watcher) -> None:
    """Denoise one pass: from whatever its keys say is done to its last state.

    A damaged chunk is made again from what it was made from. If that is damaged or gone as well, the pass starts over.

    Raises
    ------
    RunError
        If a task failed three times (all that does not wait for it is done first), or a chunk is damaged however
        often it is made.
    DamagedChunkError
        If a chunk of an earlier pass is damaged.
    """
    damages: Counter[str] = Counter()
    for _ in range(TRIES):
        try:
            return _go_on_with_pass(dispatcher, index, name, watch, damages)
        except _BeyondRepairError as error:
            dispatcher.drain()
            dispatcher.confirm()
            dispatcher.run.passes[index].state.delete_all()
            watch(Stage(name, 0, note=f"{error}; what it was made from is gone, too: the pass starts over"))
    raise RunError(f"{name}: damaged beyond repair {TRIES} times; is the disk failing? Start anew on another one")


class _BeyondRepairError(Exception):
    """A chunk is damaged, and so is what it was made from."""


def _go_on_with_pass(dispatcher: Dispatcher, index: int, name: str, watch: Watcher, damages: Counter[str]) -> None:
    context = dispatcher.run.passes[index]
    state = context.state
    wave = Wavefront(context.plan.grid, _active(context), context.plan.steps, state.record())
    _sweep(wave, state)
    progress = _Progress(dispatcher, name, wave.total, wave.completed, watch)
    due = _Deletions(state, dispatcher.notes)
    while not wave.finished:
        while not dispatcher.full and (ready := wave.next()):
            dispatcher.send(_task_of(index, ready))
        if not dispatcher.in_flight:
            break  # all that is left waits for a task that was given up
        task, result = progress.take()
        half_step = _half_step_of(task)
        if isinstance(result, Report):
            due.add(wave.finish(half_step, task.ij))
            progress.stage.done = wave.completed
        elif not isinstance(result, GivenUp):
            if isinstance(result, DamagedChunkError):
                _repair(wave, index, state, result, damages)
                dispatcher.notes.add("damage", f"{result}; it is made again")
            wave.retry(half_step, task.ij)
        progress.look()
    due.flush()
    progress.finish()
    patiently(lambda: _sweep(wave, state), dispatcher.notes)
    progress.look()


def sweep_passes(run: RunContext, notes: Notes) -> None:
    """Delete what workers that were thought dead wrote since their pass ended; last states stay."""
    for pass_ in run.passes:
        wave = Wavefront(pass_.plan.grid, _active(pass_), pass_.plan.steps, pass_.state.record())
        patiently(partial(_sweep, wave, pass_.state), notes)


class _Deletions:
    """Half-steps of a pass that are due to be deleted.

    They are no more than a folder deletes at a time. None of them is ever written again: what a damage lets be made again lies
    above all that is due (``Wavefront.roll_back``). So a request may be sent twice, and what a driver leaves that is killed, or
    a store without saying so, is deleted by the sweep at the beginning and the end of a pass; histories among it, which nobody
    reads without their state, stay until the run is cleared.

    Parameters
    ----------
    state : PassState
        The pass.
    notes : Notes
        For a person, if the store does not answer.
    """

    def __init__(self, state: PassState, notes: Notes) -> None:
        self._state, self._notes = state, notes
        self._due: list[HalfStep] = []

    def add(self, half_steps: Iterable[HalfStep]) -> None:
        """Delete half-steps, now or with the next ones."""
        self._due.extend(half_steps)
        if len(self._due) >= self._state.delete_at_once:
            self.flush()

    def flush(self) -> None:
        """Delete all that is due."""
        patiently(partial(self._state.delete_all_of, self._due), self._notes)
        self._due = []


def _active(pass_: PassContext) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in zip(*pass_.state.activity.nonzero(), strict=True)]


def _sweep(wave: Wavefront, state: PassState) -> None:
    """Delete what no task reads: left by a driver that was killed, or written late by a worker that was thought dead."""
    state.delete_unfinished()
    state.delete_all_of(wave.leftovers(state.record()))


def _repair(wave: Wavefront, index: int, state: PassState, damage: DamagedChunkError, damages: Counter[str]) -> None:
    """Let the damaged chunk be made again, or say that it cannot be; damage in an earlier pass is passed on."""
    owner, once, h, ij = place_of_key(damage.key)
    if once or owner != index:
        raise damage
    if not wave.reached(h, ij):
        return  # another task met the same damage first: the chunk is being made again
    damages[damage.key] += 1
    if damages[damage.key] >= TRIES:
        raise RunError(
            f"{damage}; made {TRIES} times with the same result: the model gives no finite numbers here, or the disk fails"
        )
    if not wave.roll_back(h, ij):
        raise _BeyondRepairError(str(damage))
    state.delete(h, ij)


def _task_of(index: int, ready: HalfStep) -> Task:
    h, ij = ready
    step, odd = divmod(h - 1, 2)
    kind: Kind = "start" if h == 0 else "assemble" if odd else "denoise"
    return Task(kind, index, ij, max(0, step))


def _half_step_of(task: Task) -> int:
    return {"start": 0, "denoise": 2 * task.step + 1, "assemble": 2 * task.step + 2}[task.kind]
