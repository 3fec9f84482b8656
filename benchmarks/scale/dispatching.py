"""What a task costs the driver, dask's scheduler and dask's workers: the engine's own loop with tasks that do nothing.

The scheduler is a process of its own, as for a cluster; the workers share a third process, as only their messages matter.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time, sleep
from unittest import mock

from wsigen.run.config import make_config
from wsigen.run.engine import dispatch
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.dispatch import Dispatcher
from wsigen.run.engine.run import run_pass
from wsigen.run.engine.workers import open_cluster
from wsigen.run.prepare import prepare
from wsigen.run.repair import prepare_pass
from wsigen.run.rundir import claim, make_run_dir
from wsigen.run.tasks.context import run_context
from wsigen.run.tasks.perform import Report

WORKERS, SIDE_CHUNKS, CHUNK, STEPS = 16, 9, 64, 5
COUNTS, IDLE_S = 10, 15.0

_SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
_WORKERS = """
import asyncio, sys
from distributed import Worker
import wsigen.run.tasks.context, benchmarks.scale.dispatching

async def main():
    workers = [await Worker(sys.argv[1], nthreads=1, memory_limit=0, dashboard=False) for _ in range(int(sys.argv[2]))]
    await asyncio.gather(*[worker.finished() for worker in workers])

asyncio.run(main())
"""


def nothing(run_dir: str, run_hash: str, *_: object) -> Report:
    """Stands for ``wsigen.run.tasks.perform.perform``; it opens the run as that does."""
    run_context(run_dir, run_hash)
    return Report(0, 0.0)


def heartbeat_interval(workers: int) -> float:
    """Seconds from one heartbeat of a worker to its next: the more workers, the longer."""
    from distributed.scheduler import heartbeat_interval as of_dask

    return float(of_dask(workers))


def measure_dispatching(folder: Path) -> dict[str, float]:
    """CPU seconds of a task, by the fields of ``TaskTimes``.

    Parameters
    ----------
    folder:
        For the run; it is made.
    """
    folder.mkdir()
    side, output = SIDE_CHUNKS * CHUNK * 8, folder / "slide.ome.tiff"
    prepared = prepare(
        make_config({"class_name": "Tumor", "size": (side, side), "chunk": CHUNK, "steps": STEPS}),
        output,
    )
    claim(made := make_run_dir(folder / "run", output), prepared)
    run = run_context(made.name, prepared.manifest.hash)
    prepare_pass(run, run.passes[0], prepared.layout)
    tasks = len(run.passes[0].plan.grid) * (2 * STEPS + 1)
    with fleet(folder, WORKERS) as (cluster, scheduler, workers):
        dispatcher = Dispatcher(run, cluster)
        cluster.ask_all(nothing, made.name, prepared.manifest.hash)  # opened once
        with mock.patch.object(dispatch, "perform", nothing):
            begin = _clocks(scheduler, workers)
            run_pass(dispatcher, 0, "denoise", lambda stage: None)
            busy = [now - then for now, then in zip(_clocks(scheduler, workers), begin, strict=True)]
        begin_count = process_time()
        for _ in range(COUNTS):
            cluster._count()  # what the driver does once a second
        counted = (process_time() - begin_count) / COUNTS
        begin = _clocks(scheduler, workers)
        sleep(IDLE_S)
        idle = [now - then for now, then in zip(_clocks(scheduler, workers), begin, strict=True)]
    quiet = [each * busy[0] / idle[0] for each in idle]
    return {
        "driver": max(0.0, busy[1] - quiet[1]) / tasks,
        "scheduler": max(0.0, busy[2] - quiet[2]) / tasks,
        "task": busy[3] / tasks,  # heartbeats and all: so many workers in one process never are quiet
        "driver_worker": counted / WORKERS,
        "heartbeat": idle[2] / idle[0] / WORKERS * heartbeat_interval(WORKERS),
    }


@contextmanager
def fleet(folder: Path, count: int) -> Iterator[tuple[Cluster, int, int]]:
    """A scheduler and workers on loopback; the cluster and the ids of both processes."""
    address = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)]
    with subprocess.Popen([sys.executable, "-c", _SCHEDULER, *options], stderr=subprocess.DEVNULL) as scheduler:
        try:
            where = _address(address, scheduler)
            with subprocess.Popen([sys.executable, "-c", _WORKERS, where, str(count)], stderr=subprocess.DEVNULL) as workers:
                try:
                    with open_cluster(1, False, where) as cluster:
                        while cluster._count()[0] < count:
                            if workers.poll() is not None:
                                raise ChildProcessError("the workers ended; see whether dask is installed")
                            sleep(0.2)
                        yield cluster, scheduler.pid, workers.pid
                finally:
                    workers.kill()
        finally:
            scheduler.kill()


def _clocks(scheduler: int, workers: int) -> tuple[float, float, float, float]:
    """Seconds of the wall, and CPU seconds of driver, scheduler and workers: what these do without tasks is taken off."""
    return perf_counter(), process_time(), cpu_of(scheduler), cpu_of(workers)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _address(path: Path, scheduler: subprocess.Popen[bytes]) -> str:
    """What the scheduler says of itself once it listens."""
    import json

    while scheduler.poll() is None:
        if path.exists() and (text := path.read_text()).endswith("}"):
            return str(json.loads(text)["address"])
        sleep(0.1)
    raise ChildProcessError("the scheduler ended; see whether dask is installed")
