"""A scheduler and workers started with dask's own commands, each in a folder of its own."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from clusters import ENVIRONMENT, WORKER, dask, running_scheduler, running_workers, wsigen
from drawing import tumor_in_stroma

from wsigen.base.errors import WsigenError
from wsigen.run.check_workers import describe_worker
from wsigen.run.engine.queue import submit_jobs
from wsigen.run.engine.workers import Workers, open_cluster
from wsigen.run.generate import generate

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.slow


@pytest.fixture
def scheduler(tmp_path):
    with running_scheduler(tmp_path) as address:
        yield address


@pytest.fixture
def workers(tmp_path, scheduler):
    """Address of a scheduler with two workers."""
    with running_workers(tmp_path, scheduler, 2):
        yield scheduler


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
    before = sorted(tmp_path.iterdir())
    for place in (tmp_path, tmp_path / "to-be-made.run"):
        done = wsigen("worker-check", workers, "--model", os.path.relpath(bundle, tmp_path), "--run-dir", place, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(re.findall(r"torch \d", done.stdout)) == 2
        assert done.stdout.count("run directory: writable") == 2
    assert sorted(tmp_path.iterdir()) == before
    done = wsigen("worker-check", workers, "--model", tmp_path / "none", "--run-dir", tmp_path / "no" / "where", cwd=tmp_path)
    assert done.returncode == 1
    assert "no such folder" in done.stderr
    assert "no model" in done.stderr


BLIND = """
import wsigen.run.tasks.context as context

def open_folder(place):
    raise FileNotFoundError(2, "No such file or directory", place)

context.open_folder = open_folder
"""


def test_a_worker_without_the_run_directory_is_left_out(bundle, tmp_path, scheduler):
    (tmp_path / "blind.py").write_text(BLIND)
    (tmp_path / "blind").mkdir()
    blind = ("--preload", str(tmp_path / "blind.py"))
    options = ("--model", bundle, "--class", "Tumor", "--size", "600x600", "--steps", "1", "--scheduler", scheduler)
    with running_workers(tmp_path / "blind", scheduler, 1, more=blind) as (blind_one,):
        alone = wsigen("generate", "a.ome.tiff", *options, cwd=tmp_path)
        assert alone.returncode == 2
        assert re.search("error: worker on .* cannot open the run .*there is no other worker", alone.stderr)
        assert "Traceback" not in alone.stderr
        seeing = dask(tmp_path / "seeing", "worker", scheduler, *WORKER, "--host", "127.0.0.1", env=ENVIRONMENT)
        try:
            deadline = time.monotonic() + 90
            while "2 worker(s) can do" not in wsigen("worker-check", scheduler, cwd=tmp_path).stdout:
                assert time.monotonic() < deadline
            done = wsigen("generate", "a.ome.tiff", *options, cwd=tmp_path)
        finally:
            seeing.terminate()
            seeing.wait(20)
        assert done.returncode == 0, done.stderr
        assert re.search("cannot open the run .*the run goes on without it", done.stderr)
        assert blind_one.wait(30) is not None


def test_a_worker_as_documented_listens_on_the_address_it_is_given_alone(tmp_path, scheduler):
    (line,) = re.findall(r"^dask (worker .*)$", (DOCS / "clusters.md").read_text(), re.MULTILINE)
    options = re.sub(r"tcp://\S+", scheduler, line).replace("10.0.0.2", "127.0.0.1").split()
    worker = dask(tmp_path / "worker", *options, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 90
        while len(heard := listening(worker.pid)) < 3:  # the nanny's port, the worker's, and the worker's page
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert {address for address, _ in heard} == {"127.0.0.1"}
    finally:
        worker.terminate()
        worker.wait(20)


def listening(number):
    """Address and port of every socket that a process and its children listen on."""
    family = [psutil.Process(number), *psutil.Process(number).children(recursive=True)]
    return {tuple(c.laddr) for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN}


def test_a_job_of_a_queue_is_told_what_a_documented_worker_is(tmp_path, monkeypatch):
    monkeypatch.setattr("wsigen.run.engine.queue.Jobs.submit", lambda self: None)
    (tmp_path / "queue.yaml").write_text(QUEUE)
    jobs = submit_jobs(tmp_path / "queue.yaml")
    try:
        script = jobs.cluster.job_script()
    finally:
        jobs.cluster.close()
    for wanted in ("--dashboard-address 127.0.0.1:0", "--memory-limit 0", "--interface lo"):
        assert wanted in script
    assert script.index("--memory-limit 0") > script.index("--memory-limit 2")  # the last one counts


def test_a_worker_looks_for_the_model_where_the_driver_has_it_and_for_what_the_driver_has_put_there(bundle, tmp_path):
    (tmp_path / "mark").touch()
    assert describe_worker(str(bundle), str(tmp_path), "mark").run_dir == "writable"
    assert describe_worker(str(bundle), str(tmp_path / "to-be-made.run"), "mark").run_dir == "writable"
    assert "is it shared?" in describe_worker(str(bundle), str(tmp_path), "another-mark").run_dir
    assert str(tmp_path / "gone") in describe_worker(str(tmp_path / "gone"), None).model


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


def test_encrypted_and_authenticated_connections(bundle, tmp_path):
    """TLS by dask's own settings in the environment (docs/clusters.md): with the certificate all works, without nothing."""
    make_certificate(tmp_path)
    tls = {f"DASK_DISTRIBUTED__COMM__TLS__{key}": str(tmp_path / file) for key, file in TLS_FILES.items()}
    env = {**ENVIRONMENT, **tls, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    with running_scheduler(tmp_path, env, "tls") as address, running_workers(tmp_path, address, 1, env):
        assert address.startswith("tls://")
        options = ("--model", bundle, "--class", "Tumor", "--size", "600x600", "--steps", "1", "--scheduler", address)
        done = wsigen("generate", "a.ome.tiff", *options, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        stranger = wsigen("generate", "b.ome.tiff", *options, cwd=tmp_path)
        assert stranger.returncode == 2
        assert "Traceback" not in stranger.stderr
        assert not (tmp_path / "b.ome.tiff").exists()


TLS_FILES = {"CA_FILE": "cert.pem"} | {
    f"{role}__{kind}": f"{kind.lower()}.pem" for role in ("SCHEDULER", "WORKER", "CLIENT") for kind in ("CERT", "KEY")
}


def make_certificate(folder):
    """One self-signed certificate for all roles, as docs/clusters.md makes it."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=wsigen"]
    subprocess.run([*command, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True)


QUEUE = """
queue: slurm
jobs: 2
settings:
  cores: 1
  processes: 1
  memory: 2 GiB
  walltime: "00:10:00"
  interface: lo
"""

SBATCH = """#!/bin/bash
cp "$1" "$1.job"
setsid bash "$1.job" > /dev/null 2>&1 &
echo "Submitted batch job $!"
"""


def fake_queue(folder, settings):
    """Write the settings, and commands like SLURM's; returns the PATH that finds these."""
    commands = folder / "bin"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", '#!/bin/bash\nkill -- -"$1" 2> /dev/null || true\n')):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (folder / "queue.yaml").write_text(settings)
    return f"{commands}:{os.environ['PATH']}"


def test_workers_as_jobs_of_a_queue(bundle, tmp_path):
    """SLURM's two commands stand in for a queue that starts jobs at once; the jobs are the real ones."""
    env = {**ENVIRONMENT, "PATH": fake_queue(tmp_path, QUEUE)}
    options = ("--model", bundle, "--class", "Tumor", "--size", "600x600", "--steps", "1", "--scheduler", "queue.yaml")
    done = wsigen("generate", "a.ome.tiff", *options, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert re.search(r"(\d workers?|waiting for workers)$", done.stderr, re.MULTILINE)  # those of jobs, which come late


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_whose_time_is_over_are_submitted_again(tmp_path, monkeypatch, processes):
    """Workers of one job live for seconds; tasks go on being done, by the workers of later jobs."""
    monkeypatch.setattr("wsigen.run.engine.queue.GONE_S", 0.5)
    monkeypatch.setattr("wsigen.run.engine.cluster.RENEW_S", 0.5)
    settings = QUEUE.replace("processes: 1", f"processes: {processes}").replace("cores: 1", f"cores: {processes}")
    path = fake_queue(tmp_path, settings.replace("jobs: 2", "jobs: 1") + LIVES_SHORTLY)
    monkeypatch.setenv("PATH", path)
    told, done_by = [], set()
    with open_cluster(Workers(0, True, scheduler=str(tmp_path / "queue.yaml"))) as cluster:
        cluster.notes.tell = told.append
        deadline = time.monotonic() + 200
        while len(done_by) <= processes:  # more processes than one job has
            assert time.monotonic() < deadline
            if not cluster.in_flight:
                cluster.submit("who", os.getpid)
            if (taken := cluster.take(1.0)) and isinstance(taken[1], int):
                done_by.add(taken[1])
                time.sleep(0.5)
    assert any("submitted again" in text for text in told)


LIVES_SHORTLY = """  worker_extra_args: ["--lifetime", "3s"]
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("queue: slrm", "'queue'"),
        ("queue: slurm\njob: 3", "'jobs'"),
        ("queue: slurm\nsettings: {cores: 1, memory: 1 GiB}", "interface"),
        ("queue: slurm\nsettings: {cores: 1, interface: lo}", "memory"),
        ("- slurm", "queue.yaml"),
        (None, "cannot be read"),
    ],
)
def test_bad_queue_files(tmp_path, text, words):
    file = tmp_path / "queue.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(WsigenError, match=words) as raised, open_cluster(Workers(0, True, scheduler=str(file))):
        pass
    assert len(str(raised.value).splitlines()) == 1
