"""A scheduler and workers started with dask's own commands, each in a folder of its own."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WORKER = ("--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--dashboard-address", "127.0.0.1:0")


def dask(folder, *args, env):
    folder.mkdir()
    command = [sys.executable, "-m", "dask", *args]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wsigen(*args, cwd, env=ENVIRONMENT, timeout=150):
    command = [sys.executable, "-m", "wsigen", *(str(a) for a in args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=env)


@contextmanager
def running_scheduler(folder, env=ENVIRONMENT, protocol="tcp"):
    """Address of a scheduler without workers."""
    file = folder / "scheduler.json"
    options = ["--host", f"{protocol}://127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    process = dask(folder / "scheduler", "scheduler", *options, "--scheduler-file", str(file), env=env)
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"]
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def running_workers(folder, scheduler, count, env=ENVIRONMENT, more=()):
    """Workers of one thread each, once they answer."""
    options = (*WORKER, "--host", scheduler.rpartition(":")[0], *more)
    processes = [dask(folder / f"worker-{k}", "worker", scheduler, *options, env=env) for k in range(count)]
    try:
        deadline = time.monotonic() + 90
        while f"{count} worker(s) can do" not in wsigen("worker-check", scheduler, cwd=folder, env=env).stdout:
            assert time.monotonic() < deadline
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
