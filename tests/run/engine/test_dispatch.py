"""How often a task may fail, and how many workers it may lose."""

import errno
import pickle
from itertools import cycle
from types import SimpleNamespace

import pytest

from wsigen.base.errors import ResourceError, RunError, UnfitWorkerError
from wsigen.run.engine import run
from wsigen.run.engine.cluster import Cluster, SchedulerLostError, WorkerLostError
from wsigen.run.engine.dispatch import FIRST_WAIT_S, GIVEN_UP, LOSSES, PATIENCE_S, TRIES, Dispatcher, GivenUp, patiently
from wsigen.run.engine.stage import NOTE_EVERY_S, Notes
from wsigen.run.spec import FAILURES
from wsigen.run.tasks.perform import Report, Task
from wsigen.storage.local import LocalFolder

TASK = Task("denoise", 1, (0, 2), 3)
SPEC = SimpleNamespace(run_id="r1", hash="h")


class Results:
    """A cluster that gives back what it was given."""

    def __init__(self, *results, tasks=(TASK,)):
        self._results, self._tasks = iter(results), cycle(tasks)

    def take(self, wait_s):
        return next(self._tasks), next(self._results)


def refuse():
    raise RunError("another driver has taken this run over")


def test_a_pass_is_not_deleted_by_a_driver_that_lost_its_run(monkeypatch):
    deleted = []
    state = SimpleNamespace(delete_all=lambda: deleted.append(1))
    driven = SimpleNamespace(passes=[SimpleNamespace(state=state)])

    def damaged(*args):
        raise run._BeyondRepairError("pass-0/latents/c/1/0/0/0: truncated")

    monkeypatch.setattr(run, "_go_on_with_pass", damaged)
    idle = SimpleNamespace(in_flight=0)
    with pytest.raises(RunError, match="taken this run over"):
        run.run_pass(Dispatcher(driven, idle, confirm=refuse), 0, "denoise", lambda stage: None)
    assert not deleted
    with pytest.raises(RunError, match="beyond repair"):
        run.run_pass(Dispatcher(driven, idle), 0, "denoise", lambda stage: None)
    assert deleted


def test_a_scheduler_that_leaves_often_is_no_loss_of_workers():
    dispatcher = Dispatcher(None, Results(*[SchedulerLostError("went away")] * (3 * LOSSES)))
    for _ in range(3 * LOSSES):
        assert isinstance(dispatcher.take()[1], WorkerLostError)
    assert not dispatcher.losses
    assert not dispatcher.given_up


class Asked(Cluster):
    """A cluster whose clients stand as the test says."""

    def _use(self, client):
        self._client = client


def test_a_task_of_a_scheduler_that_left_is_told_as_such():
    clients = iter([SimpleNamespace(status="closed"), SimpleNamespace(status="running")])
    cluster = Asked(lambda: next(clients))
    cluster._labels["future"] = TASK
    assert cluster._ask(lambda client: client.status) == "running"
    label, lost = cluster.take(1.0)
    assert label == TASK
    assert isinstance(lost, SchedulerLostError)


@pytest.mark.parametrize(("error", "tries"), [(RuntimeError("odd graph"), 1), (OSError("timed out"), 2)])
def test_a_scheduler_that_is_there_is_not_waited_for(error, tries):
    """Only one that cannot be reached is asked again."""
    asked = []

    def question(client):
        asked.append(client)
        if len(asked) < 2:
            raise error
        return "answer"

    cluster = Asked(lambda: SimpleNamespace(status="running"))
    if tries == 1:
        with pytest.raises(ResourceError, match="RuntimeError: odd graph"):
            cluster._ask(question)
    else:
        assert cluster._ask(question) == "answer"
    assert len(asked) == tries


@pytest.fixture
def driven(tmp_path):
    """A run whose folder can be written to."""
    return SimpleNamespace(folder=LocalFolder(tmp_path), spec=SPEC)


def test_a_task_is_given_up_by_name(driven):
    dispatcher = Dispatcher(driven, Results(*[ValueError("odd shape")] * TRIES))
    for _ in range(TRIES - 1):
        assert isinstance(dispatcher.take()[1], WorkerLostError)
    assert isinstance(dispatcher.take()[1], GivenUp)
    with pytest.raises(RunError, match=r"denoise step 3 of chunk \(0, 2\) in pass 1 .*ValueError: odd shape.*resume the run"):
        dispatcher.demand_none_given_up()


def test_tracebacks_of_given_up_tasks_are_kept(driven):
    def raised(word):
        try:
            raise ValueError(word)
        except ValueError as error:
            return error

    tasks = [Task("decode", 0, (0, column)) for column in range(2)]
    results = [raised(f"odd shape {i % 2}") for i in range(2 * TRIES)]
    dispatcher = Dispatcher(driven, Results(*results, tasks=tasks))
    for _ in results:
        dispatcher.take()
    kept = driven.folder.read(FAILURES).decode()
    for task, word in zip(tasks, ["odd shape 0", "odd shape 1"], strict=True):
        assert f"r1 {task.name}\nTraceback" in kept
        assert f"ValueError: {word}" in kept
    assert __file__ in kept
    with pytest.raises(RunError, match=f"tracebacks: {FAILURES}"):
        dispatcher.demand_none_given_up()


def test_a_difference_is_told_once():
    dispatcher = Dispatcher(None, Results())
    report = Report(1, 0.1, ("host a has torch 1",))
    assert dispatcher.new_differences(report) == ["host a has torch 1"]
    assert dispatcher.new_differences(report) == []
    assert dispatcher.new_differences(Report(1, 0.1)) == []


def test_a_task_that_kills_its_workers_stops_the_run(driven):
    dispatcher = Dispatcher(driven, Results(*[WorkerLostError("tcp://a died")] * LOSSES))
    for _ in range(LOSSES - 1):
        assert isinstance(dispatcher.take()[1], WorkerLostError)
    with pytest.raises(RunError, match=r"denoise step 3 of chunk \(0, 2\) in pass 1 .*enough memory"):
        dispatcher.take()


def test_many_tasks_given_up_stop_a_run_at_once(driven):
    tasks = [Task("decode", 0, (0, column)) for column in range(GIVEN_UP)]
    dispatcher = Dispatcher(driven, Results(*[ValueError("odd shape")] * (TRIES * GIVEN_UP), tasks=tasks))
    for _ in range(TRIES * GIVEN_UP - 1):
        dispatcher.take()
    with pytest.raises(RunError, match=rf"and {GIVEN_UP - 1} more tasks"):
        dispatcher.take()
    assert len(dispatcher.given_up) == GIVEN_UP


def test_a_full_disk_stops_a_run_without_trying_other_tasks(driven):
    dispatcher = Dispatcher(driven, Results(*[OSError(errno.EDQUOT, "quota exceeded")] * TRIES))
    for _ in range(TRIES - 1):
        dispatcher.take()
    with pytest.raises(RunError, match=r"quota exceeded.*resume the run"):
        dispatcher.take()


def test_lost_workers_are_not_the_tasks_own_failures():
    report = Report(1, 0.1)
    dispatcher = Dispatcher(None, Results(*[WorkerLostError("died")] * (LOSSES - 1), ValueError("once"), report))
    for _ in range(LOSSES):
        dispatcher.take()
    assert dispatcher.take() == (TASK, report)


class Waiting:
    """A cluster on a clock of its own, whose only task fails until the store is back."""

    def __init__(self, now, back_at, error):
        self.now, self.back_at, self.error = now, back_at, error
        self.sent, self.times, self.slots = [], [], 1

    @property
    def in_flight(self):
        return len(self.sent)

    def submit(self, label, *args, **named):
        self.sent.append(label)
        self.times.append(self.now[0])

    def take(self, wait_s):
        if not self.sent:
            self.now[0] += wait_s
            return None
        return self.sent.pop(), (Report(1, 0.1) if self.now[0] >= self.back_at else self.error)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("wsigen.run.engine.dispatch.monotonic", lambda: now[0])
    monkeypatch.setattr("wsigen.run.engine.dispatch.sleep", lambda s: now.__setitem__(0, now[0] + s))
    return now


def worked_at(dispatcher):
    """Send the task until it is done or given up; the last outcome."""
    dispatcher.send(TASK)
    while isinstance(dispatcher.take()[1], WorkerLostError):
        dispatcher.send(TASK)


@pytest.mark.parametrize("away_s", [0.1, 5, 40, 110])
def test_a_store_that_is_away_for_a_while_costs_no_try(driven, clock, away_s):
    cluster = Waiting(clock, clock[0] + away_s, ConnectionError("the store is away"))
    dispatcher = Dispatcher(driven, cluster)
    worked_at(dispatcher)
    assert not dispatcher.tries
    assert not dispatcher.given_up
    assert away_s <= clock[0] - 1000 <= max(1, 2 * away_s + 1)
    assert len(cluster.times) < 12


def test_a_store_that_stays_away_is_given_up_in_time(driven, clock):
    cluster = Waiting(clock, 1e9, ConnectionError("the store is away"))
    dispatcher = Dispatcher(driven, cluster)
    worked_at(dispatcher)
    assert dispatcher.given_up
    assert clock[0] - 1000 == pytest.approx(PATIENCE_S)


@pytest.mark.parametrize(
    "error",
    [PermissionError(errno.EACCES, "no"), OSError(errno.EROFS, "read-only"), OSError(errno.EFBIG, "large"), ValueError("odd")],
)
def test_what_does_not_pass_by_itself_is_not_waited_for(driven, clock, error):
    dispatcher = Dispatcher(driven, Waiting(clock, 1e9, error))
    worked_at(dispatcher)
    assert clock[0] == 1000
    assert dispatcher.given_up


def test_the_driver_waits_for_its_own_store_too(clock):
    told, failures = [], iter([OSError("stale file handle"), TimeoutError("timed out"), None])

    def act():
        if error := next(failures):
            raise error

    patiently(act, Notes(told.append))
    assert clock[0] == 1000 + 2 * FIRST_WAIT_S
    assert "stale file handle" in told[0]
    with pytest.raises(PermissionError):
        patiently(lambda: (_ for _ in ()).throw(PermissionError("no")), Notes())


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({}, "not a run directory"),
        ({"hash": "other", "model": "."}, "another run"),
        ({"hash": "h", "model": "gone"}, "model is gone"),
    ],
)
def test_no_worker_is_sent_away_for_a_run_that_is_gone(driven, monkeypatch, there, words):
    if there:
        monkeypatch.setattr("wsigen.run.engine.dispatch.RunSpec.load", lambda folder: SimpleNamespace(**there))
    unfit = UnfitWorkerError("worker on h7: cannot open the run (no such file)")
    unfit.worker = "tcp://h7:1"
    sent_away = []
    cluster = Results(unfit)
    cluster.leave_out = sent_away.append
    with pytest.raises(RunError, match=words):
        Dispatcher(driven, cluster).take()
    cluster = Results(unfit)
    cluster.leave_out = sent_away.append
    with pytest.raises(RunError, match="taken this run over"):
        Dispatcher(driven, cluster, confirm=refuse).take()
    assert not sent_away


def test_a_worker_that_cannot_take_part_is_left_out_and_the_last_one_ends_the_run(driven, monkeypatch):
    monkeypatch.setattr("wsigen.run.engine.dispatch.RunSpec.load", lambda folder: SimpleNamespace(hash="h", model="."))
    unfit = UnfitWorkerError("worker on h7: cannot open the run (no such file)")
    unfit.worker = "tcp://h7:1"
    unfit = pickle.loads(pickle.dumps(unfit))
    cluster = Results(*[unfit] * 5)
    left, told = iter([True, True, False]), []
    cluster.leave_out = lambda address: address == "tcp://h7:1" and next(left)
    dispatcher = Dispatcher(driven, cluster, notes=Notes(told.append))
    for _ in range(2):
        assert isinstance(dispatcher.take()[1], WorkerLostError)
    assert not dispatcher.tries
    assert not dispatcher.losses
    assert len(told) == 1
    assert "h7" in told[0]
    with pytest.raises(RunError, match=r"h7.*no other worker"):
        dispatcher.take()


def test_notes_of_a_kind_are_held_back_and_counted(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr("wsigen.run.engine.stage.monotonic", lambda: now[0])
    notes = Notes(told.append)
    for number in range(100):
        notes.add("lost", f"worker {number} was lost")
    notes.add("store", "away")
    assert told == ["worker 0 was lost", "away"]
    now[0] += NOTE_EVERY_S
    notes.flush()
    assert told[2:] == ["worker 99 was lost (and 98 more like this)"]
    notes.add("lost", "one more")
    notes.flush(at_once=True)
    assert told[3:] == ["one more"]
