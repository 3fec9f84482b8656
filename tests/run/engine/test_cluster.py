"""Workers come and go: what the cluster makes of what its scheduler says, on a clock of the test's."""

from types import SimpleNamespace

import pytest

from wsigen.base.errors import ResourceError
from wsigen.run.engine import cluster as engine
from wsigen.run.engine.cluster import WORKERS_S, Cluster
from wsigen.run.engine.stage import Notes

CPU = {"name": "a", "nthreads": 2, "resources": {}}
GPU = {"name": "b", "nthreads": 2, "resources": {"GPU": 1}}


class Fleet(Cluster):
    """A cluster whose scheduler knows the workers in ``there``; what is in ``broken`` is raised first."""

    def __init__(self, there, accelerated=False, jobs=None):
        self.there, self.broken, self.retired, self.told = there, [], [], []
        super().__init__(lambda: None, jobs, accelerated)
        self.notes = Notes(self.told.append)

    def _use(self, client):
        scheduler = SimpleNamespace(identity=self._identity)
        self._client = SimpleNamespace(
            status="running",
            scheduler=scheduler,
            sync=lambda function, **named: function(**named),
            nthreads=lambda: {address: worker["nthreads"] for address, worker in self.there.items()},
            scheduler_info=self._last_known,
            retire_workers=lambda workers, **named: self.retired.extend(workers),
        )

    def _identity(self, n_workers):
        if self.broken:
            raise self.broken.pop()
        return {"workers": dict(self.there)}

    def _last_known(self, n_workers):
        """As dask's client: where the scheduler cannot be asked, there are no workers."""
        try:
            return self._identity(n_workers)
        except OSError:
            return {"workers": {}}


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(engine, "monotonic", lambda: now[0])
    monkeypatch.setattr(engine, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    return now


@pytest.mark.parametrize("ask", [lambda c: c.workers == 1, lambda c: c.leave_out("tcp://b:1")])
def test_a_connection_that_breaks_leaves_no_workers_out(clock, ask):
    cluster = Fleet({"tcp://a:1": GPU, "tcp://b:1": CPU}, accelerated=True)
    cluster.broken = [OSError("connection reset"), OSError("timed out")]
    assert ask(cluster)
    assert not cluster.broken


def test_a_scheduler_that_stays_away_ends_the_run(clock):
    cluster = Fleet({"tcp://a:1": GPU}, accelerated=True)
    cluster.broken = [OSError("connection reset")] * 1000
    with pytest.raises(ResourceError, match="scheduler went away"):
        _ = cluster.workers


def ask_until_refused(cluster, clock):
    while True:
        clock[0] += 10
        assert cluster.workers == 0


@pytest.mark.parametrize(
    ("there", "left", "words"),
    [
        ({"tcp://a:1": CPU, "tcp://b:1": GPU}, {"tcp://a:1": CPU}, "worker with the resource GPU"),
        ({"tcp://a:1": CPU}, {}, "worker"),
    ],
)
def test_workers_that_left_are_waited_for_aloud_and_not_for_ever(clock, there, left, words):
    cluster = Fleet(there, accelerated=True)
    assert cluster.workers
    cluster.there = left
    begin = clock[0]
    with pytest.raises(ResourceError, match=f"no {words} for 60 min; .*resume"):
        ask_until_refused(cluster, clock)
    assert WORKERS_S <= clock[0] - begin <= WORKERS_S + 20
    assert len(cluster.told) == 1
    assert f"no {words} is left" in cluster.told[0]


def test_a_worker_that_leaves_is_told_of_even_if_another_takes_its_place(clock):
    cluster = Fleet({"tcp://a:1": CPU, "tcp://b:1": CPU})
    assert cluster.workers == 4
    cluster.there = {"tcp://b:1": CPU, "tcp://c:1": CPU}
    clock[0] += 2
    assert cluster.workers == 4
    assert cluster.told == ["1 worker left; 2 there now"]
    assert cluster.leave_out("tcp://c:1")  # which says so itself
    cluster.there = {"tcp://b:1": CPU}
    clock[0] += 2
    assert cluster.workers == 2
    assert len(cluster.told) == 1


def test_a_worker_that_comes_back_begins_the_waiting_anew(clock):
    cluster = Fleet({"tcp://b:1": GPU, "tcp://a:1": CPU}, accelerated=True)
    everybody = cluster.there
    for _ in range(3):
        assert cluster.workers == 1
        cluster.there = {"tcp://a:1": CPU}
        for _ in range(2):
            clock[0] += 0.45 * WORKERS_S
            assert cluster.workers == 0
        cluster.there = everybody
        clock[0] += 0.45 * WORKERS_S


def test_jobs_of_a_queue_are_waited_for_for_days(clock):
    cluster = Fleet({}, jobs=SimpleNamespace())
    for _ in range(5):
        clock[0] += 86400
        assert cluster.workers == 0


def test_the_last_gpu_is_not_left_out_for_workers_without(clock):
    cluster = Fleet({"tcp://a:1": CPU, "tcp://b:1": GPU}, accelerated=True)
    assert cluster.workers == 1
    assert not cluster.leave_out("tcp://b:1")
    assert not cluster.retired
    assert cluster.leave_out("tcp://a:1")  # a GPU can do what that one did
    cluster.there["tcp://c:1"] = GPU
    assert cluster.leave_out("tcp://b:1")
    assert cluster.retired == ["tcp://a:1", "tcp://b:1"]


def test_on_cpus_any_worker_takes_the_place_of_another(clock):
    cluster = Fleet({"tcp://a:1": CPU, "tcp://b:1": GPU})
    assert cluster.workers == 4
    assert cluster.leave_out("tcp://b:1")
