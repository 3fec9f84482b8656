"""Jobs of a queue end, and others take their places."""

import asyncio
from itertools import count

import pytest

from wsigen.engine import queue
from wsigen.engine.queue import Jobs
from wsigen.errors import ResourceError


class Submitted:
    """What dask-jobqueue's clusters have in common: wanted jobs by name, made true by awaiting them; names are given again."""

    def __init__(self, processes):
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

    def workers(self, *numbers):
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
    assert jobs.renew(cluster.workers(0)) == 0
    clock[0] += 10 * queue.GONE_S
    assert jobs.renew(cluster.workers(0)) == 0  # the second one may wait in the queue for days
    assert jobs.renew(set()) == 0
    clock[0] += queue.GONE_S / 2
    assert jobs.renew(set()) == 0
    clock[0] += queue.GONE_S
    assert jobs.renew(set()) == 1
    assert cluster.submitted == 3
    assert len(cluster.worker_spec) == 2
    assert jobs.renew(cluster.workers(0, 1)) == 0


def test_a_worker_that_comes_back_is_no_end(clock):
    cluster = Submitted(1)
    jobs = Jobs(cluster, 1, "q.yaml")
    jobs.submit()
    for _ in range(5):
        jobs.renew(cluster.workers(0))
        clock[0] += queue.GONE_S * 0.9
        assert jobs.renew(set()) == 0
    assert cluster.submitted == 1


def test_no_job_takes_the_place_of_one_that_cannot_take_part(clock):
    cluster = Submitted(1)
    jobs = Jobs(cluster, 2, "q.yaml")
    jobs.submit()
    jobs.renew(cluster.workers(0))
    assert jobs.leave_out("job-0")  # the other one has yet to begin
    jobs.renew(cluster.workers(1))
    assert jobs.leave_out("job-0")  # the other one works, or will again after its wall time
    for _ in range(3):
        clock[0] += 2 * queue.GONE_S
        assert jobs.renew(cluster.workers(1)) == 0
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


def test_a_queue_that_refuses_is_one_line():
    cluster = Submitted(1)
    cluster.refuses = True
    with pytest.raises(ResourceError, match=r"q\.yaml: .*no such partition"):
        Jobs(cluster, 1, "q.yaml").submit()
