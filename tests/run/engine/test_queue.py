"""Jobs of a queue end, and others take their places."""

import asyncio
from itertools import count
from types import SimpleNamespace

import pytest

from wsigen.base.errors import ResourceError
from wsigen.run.engine import queue
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.queue import Jobs
from wsigen.run.engine.stage import Notes


class Submitted:
    """What dask-jobqueue's clusters have in common: wanted jobs by name, made true by awaiting them; names are given again."""

    def __init__(self, processes):
        self.workers = {}
        self.worker_spec, self.there, self.submitted, self.refuses = {}, set(), 0, False
        self._group = {"group": [f"-{k}" for k in range(processes)]} if processes > 1 else {}

    def new_worker_spec(self):
        return {next(name for name in map("job-{}".format, count()) if name not in self.worker_spec): self._group}

    def sync(self, function):
        asyncio.run(function())

    def __await__(self):
        if self.refuses and self.worker_spec:
            raise RuntimeError("sbatch: no such partition")
        self.there &= set(self.worker_spec)
        self.submitted += len(set(self.worker_spec) - self.there)
        self.there |= set(self.worker_spec)
        return iter(())

    def workers_of(self, *numbers):
        """Names of the workers of some of the jobs, one process of each."""
        return {f"job-{k}" + ("-1" if self._group else "") for k in numbers}


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(queue, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("processes", [1, 3])
def test_a_job_that_ended_is_followed_by_another(clock, processes):
    cluster = Submitted(processes)
    jobs = Jobs(cluster, 2, "q.yaml")
    jobs.submit()
    assert cluster.submitted == 2
    assert jobs.renew(cluster.workers_of(0)) == 0
    clock[0] += 10 * queue.GONE_S
    assert jobs.renew(cluster.workers_of(0)) == 0  # the second one may wait in the queue for days
    assert jobs.renew(set()) == 0
    clock[0] += queue.GONE_S / 2
    assert jobs.renew(set()) == 0
    clock[0] += queue.GONE_S
    assert jobs.renew(set()) == 1
    assert cluster.submitted == 3
    assert len(cluster.worker_spec) == 2
    assert jobs.renew(cluster.workers_of(0, 1)) == 0


def test_a_worker_that_comes_back_is_no_end(clock):
    cluster = Submitted(1)
    jobs = Jobs(cluster, 1, "q.yaml")
    jobs.submit()
    for _ in range(5):
        jobs.renew(cluster.workers_of(0))
        clock[0] += queue.GONE_S * 0.9
        assert jobs.renew(set()) == 0
    assert cluster.submitted == 1


def test_no_job_takes_the_place_of_one_that_cannot_take_part(clock):
    cluster = Submitted(1)
    jobs = Jobs(cluster, 2, "q.yaml")
    jobs.submit()
    jobs.renew(cluster.workers_of(0))
    assert jobs.leave_out("job-0")  # the other one has yet to begin
    jobs.renew(cluster.workers_of(1))
    assert jobs.leave_out("job-0")  # the other one works, or will again after its wall time
    for _ in range(3):
        clock[0] += 2 * queue.GONE_S
        assert jobs.renew(cluster.workers_of(1)) == 0
    assert not jobs.leave_out("job-1")


def test_a_job_is_followed_while_one_of_its_workers_can_take_part(clock):
    cluster = Submitted(2)
    jobs = Jobs(cluster, 1, "q.yaml")
    jobs.submit()
    jobs.renew({"job-0-0", "job-0-1"})
    assert jobs.leave_out("job-0-0")
    jobs.renew(set())
    clock[0] += 2 * queue.GONE_S
    assert jobs.renew(set()) == 1


@pytest.fixture
def queue_of_dask():
    """dask's own cluster of jobs, whose queue takes none while ``refusing`` holds something."""
    from distributed import Scheduler, SpecCluster
    from distributed.deploy.spec import ProcessInterface

    class Job(ProcessInterface):
        tried, refusing = [], [1]

        async def start(self):
            self.tried.append(self)
            if self.refusing:
                raise RuntimeError("Command exited.\nExit code: 1\nstderr:\nsbatch: error: invalid\npartition\n\n")
            await super().start()

    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": here}
    with SpecCluster(worker={"cls": Job}, scheduler=scheduler, silence_logs=50) as cluster:
        yield cluster, Job


def test_what_a_queue_refused_is_tried_once_a_look(queue_of_dask):
    cluster, job = queue_of_dask
    jobs = Jobs(cluster, 2, "q.yaml")
    for look in (1, 2, 3):
        with pytest.raises(ResourceError, match=r"q\.yaml: [^:]*\(sbatch: error: invalid partition\)$"):
            jobs.submit()
        assert len(job.tried) == 2 * look
    job.refusing.clear()
    jobs.submit()
    jobs.submit()
    assert len(job.tried) == 8
    assert len(cluster.workers) == 2


def test_what_a_queue_says_is_told_once(monkeypatch):
    monkeypatch.setattr("wsigen.run.engine.cluster.RENEW_S", 0.0)
    monkeypatch.setattr("wsigen.run.engine.stage.NOTE_EVERY_S", 0.0)
    answers = iter([ResourceError("no such partition")] * 3 + [ResourceError("down"), 0, ResourceError("down")])
    told = []

    def renew(names):
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    cluster = Cluster.__new__(Cluster)
    cluster._jobs, cluster._refused, cluster._renewed = SimpleNamespace(renew=renew), "", 0.0
    cluster.notes, cluster._there = Notes(told.append), dict
    for _ in range(6):
        cluster._renew_jobs()
    assert [text.partition(";")[0] for text in told] == ["no such partition", "down", "down"]


def test_a_queue_that_refuses_is_one_line():
    cluster = Submitted(1)
    cluster.refuses = True
    with pytest.raises(ResourceError, match=r"q\.yaml: .*no such partition"):
        Jobs(cluster, 1, "q.yaml").submit()
