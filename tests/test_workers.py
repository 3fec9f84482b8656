"""A scheduler and workers started with dask's own commands, each in a folder of its own."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from drawing import tumor_in_stroma

from wsigen.generate import generate

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


def dask(folder, *args):
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *args], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wsigen(*args, cwd):
    command = [sys.executable, "-m", "wsigen", *(str(a) for a in args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=150, env=ENVIRONMENT)


@pytest.fixture
def scheduler(tmp_path):
    """Address of a scheduler without workers."""
    file = tmp_path / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file))
    process = dask(tmp_path / "scheduler", "scheduler", *options)
    deadline = time.monotonic() + 60
    while not file.exists() or not file.read_text().strip():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"]
    process.terminate()
    process.wait(20)


@pytest.fixture
def workers(tmp_path, scheduler):
    """Address of a scheduler with two workers."""
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    processes = [dask(tmp_path / f"worker-{k}", "worker", scheduler, *options) for k in range(2)]
    deadline = time.monotonic() + 90
    while "2 worker(s) can do" not in wsigen("worker-check", scheduler, cwd=tmp_path).stdout:
        assert time.monotonic() < deadline
    yield scheduler
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(20)


def test_workers_of_another_process_make_the_same_slide(bundle, tmp_path, workers):
    layout = tumor_in_stroma(tmp_path / "layout.geojson")
    settings = {"model": str(bundle), "layout": layout, "size": (640, 600), "steps": 2, "seed": 3, "chunk": 32}
    alone = generate(tmp_path / "alone.ome.tiff", workers=1, **settings)
    options = [part for key, value in settings.items() if key != "size" for part in (f"--{key}", value)]
    done = wsigen("generate", "there.ome.tiff", *options, "--size", "640x600", "--scheduler", workers, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert alone.level0_sha256 in done.stdout
    assert re.search("2 workers", done.stderr)


def test_worker_check_says_what_does_not_fit(bundle, tmp_path, workers):
    done = wsigen("worker-check", workers, "--model", bundle, "--run-dir", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"torch \d", done.stdout)) == 2
    assert done.stdout.count("run directory: writable") == 2
    done = wsigen("worker-check", workers, "--model", tmp_path / "none", "--run-dir", tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert "no such folder" in done.stderr
    assert "no model" in done.stderr


def test_a_scheduler_without_workers_is_waited_for_aloud(bundle, tmp_path, scheduler):
    done = wsigen("worker-check", scheduler, cwd=tmp_path)
    assert done.returncode == 1
    assert "no workers" in done.stderr
    command = [sys.executable, "-m", "wsigen", "generate", "a.ome.tiff", "--model", str(bundle), "--class", "Tumor"]
    command += ["--size", "600x600", "--steps", "1", "--scheduler", scheduler]
    waiting = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        assert "waiting for workers" in waiting.stderr.readline()
    finally:
        waiting.kill()
        waiting.communicate()
