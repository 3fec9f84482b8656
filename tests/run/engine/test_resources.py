"""Workers that declare GPUs get the tasks that call the model; these are CPU workers that say so."""

import time
from itertools import pairwise

import pytest

from wsigen.run.engine import cluster as engine
from wsigen.run.engine.cluster import Cluster


def held_by():
    """Name of the worker that does it, and when."""
    from distributed import get_worker

    begin = time.monotonic()
    time.sleep(0.05)
    return get_worker().name, begin, time.monotonic()


@pytest.fixture(params=[{"GPU": 1}])
def fleet(request):
    """A scheduler in this process; a worker with a GPU (or what a test says it declares) and one without, two threads each."""
    from distributed import Client, Scheduler, SpecCluster, Worker

    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    workers = {
        "with": {"cls": Worker, "options": {**here, "nthreads": 2, "resources": request.param}},
        "without": {"cls": Worker, "options": {**here, "nthreads": 2}},
    }
    with SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": here}, silence_logs=50) as cluster:
        yield lambda: Client(cluster, set_as_default=False)


def outcomes(cluster, count, model):
    for number in range(count):
        cluster.submit(number, held_by, model=model)
    return [cluster.take(60)[1] for _ in range(count)]


def test_tasks_that_call_the_model_go_to_gpus_one_at_a_time(fleet):
    cluster = Cluster(fleet, accelerated=True)
    assert cluster.workers == 1
    done = sorted(outcomes(cluster, 8, model=True), key=lambda outcome: outcome[1])
    assert {name for name, _, _ in done} == {"with"}
    assert all(end <= begin for (_, _, end), (_, begin, _) in pairwise(done))
    assert "without" in {name for name, _, _ in outcomes(cluster, 8, model=False)}
    cluster.close(5)


def test_tasks_that_share_a_gpu_are_as_many_as_the_worker_has_threads_for(fleet):
    cluster = Cluster(fleet, accelerated=True, tasks_at_once=2)
    assert (cluster.slots, cluster.workers) == (2, 1)
    done = sorted(outcomes(cluster, 8, model=True), key=lambda outcome: outcome[1])
    assert {name for name, _, _ in done} == {"with"}
    assert any(end > begin for (_, _, end), (_, begin, _) in pairwise(done))
    assert all(end <= begin for (_, _, end), (_, begin, _) in zip(done, done[2:], strict=False))
    cluster.close(5)


@pytest.mark.parametrize("fleet", [{}], indirect=True)
@pytest.mark.parametrize(("at_once", "slots", "workers"), [(1, 2, 2), (2, 4, 2), (3, 4, 2)])
def test_workers_that_declare_nothing_are_taken_to_have_an_accelerator_each(fleet, at_once, slots, workers):
    """Whatever their threads: those beyond ``tasks_at_once`` would only wait for their turn at it."""
    cluster = Cluster(fleet, accelerated=True, tasks_at_once=at_once)
    assert (cluster.slots, cluster.workers) == (slots, workers)
    cluster.close(5)


def test_a_run_on_cpus_takes_all_workers(fleet):
    cluster = Cluster(fleet)
    assert cluster.workers == 4
    assert {name for name, _, _ in outcomes(cluster, 12, model=True)} == {"with", "without"}
    cluster.close(5)


def test_workers_are_counted_once_a_second(fleet, monkeypatch):
    cluster = Cluster(fleet)
    asked = []
    count = cluster._count
    monkeypatch.setattr(cluster, "_count", lambda: asked.append(1) or count())
    for _ in range(1000):
        assert cluster.workers == 4
    assert len(asked) <= 2
    monkeypatch.setattr(engine, "COUNT_S", 0.0)
    assert cluster.workers == 4
    assert len(asked) >= 2
    cluster.close(5)
