"""Limits of control groups, read from folders that look like the kernel's; and freed memory is kept by threads and workers."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from wsigen.base import machine
from wsigen.base.machine import LARGEST, LARGEST_OLD, kept_environment, set_options
from wsigen.run.config import make_config
from wsigen.run.engine.workers import Workers, open_cluster
from wsigen.run.estimate import memory

GIB = 2**30


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


@pytest.fixture
def kernel(tmp_path):
    """A membership file and a root to fill."""
    return SimpleNamespace(membership=tmp_path / "cgroup", root=tmp_path / "fs")


def v2(root, path, limit, used, idle=0):
    stat = f"anon {used - idle}\ninactive_file {idle}"
    write(root / path, {"memory.max": limit, "memory.current": used, "memory.stat": stat})


def v1(root, path, limit, used, idle=0):
    stat = f"inactive_file 5\ntotal_inactive_file {idle}"
    write(root / "memory" / path, {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat})


def found(kernel):
    where = (kernel.membership, kernel.root)
    return machine.memory_limit(*where), machine.memory_left(*where)


def test_version_2_takes_the_tightest_group_on_the_way_up(kernel):
    kernel.membership.write_text("0::/jobs/one/step\n")
    v2(kernel.root, "jobs/one/step", "max", GIB)
    v2(kernel.root, "jobs/one", 8 * GIB, 3 * GIB, idle=GIB)
    v2(kernel.root, "jobs", 16 * GIB, 15 * GIB)
    assert found(kernel) == (8 * GIB, GIB)  # 16 - 15 is less than 8 - (3 - 1)


def test_idle_page_cache_is_not_used(kernel):
    kernel.membership.write_text("0::/\n")
    v2(kernel.root, ".", 4 * GIB, 3 * GIB, idle=2 * GIB)
    assert found(kernel) == (4 * GIB, 3 * GIB)


def test_version_1_and_its_number_for_no_limit(kernel):
    kernel.membership.write_text("11:cpu,cpuacct:/x\n4:memory:/slurm/job_7\n0::/ignored\n")
    v1(kernel.root, "slurm", 9223372036854771712, 20 * GIB)
    v1(kernel.root, "slurm/job_7", 2 * GIB, GIB, idle=GIB // 2)
    assert found(kernel) == (2 * GIB, 3 * GIB // 2)


def test_a_container_knows_its_group_by_the_root_alone(kernel):
    kernel.membership.write_text("4:memory:/docker/0123abc\n")
    v1(kernel.root, ".", GIB, GIB // 4)
    assert found(kernel) == (GIB, 3 * GIB // 4)


def test_more_used_than_allowed_leaves_nothing(kernel):
    kernel.membership.write_text("0::/a\n")
    v2(kernel.root, "a", GIB, 2 * GIB)
    assert found(kernel) == (GIB, 0)


@pytest.mark.parametrize("membership", ["", "0::/nowhere\n", "nonsense\n", "1:name=systemd:/x\n"])
def test_no_limit(kernel, membership):
    kernel.membership.write_text(membership)
    assert found(kernel) == (None, None)


def test_no_control_groups_at_all(kernel):
    assert found(kernel) == (None, None)


def test_the_run_may_use_no_more_than_its_group(kernel, monkeypatch):
    kernel.membership.write_text("0::/a\n")
    v2(kernel.root, "a", 64 * 2**20, 2**20)
    monkeypatch.setattr(memory, "memory_left", lambda: machine.memory_left(kernel.membership, kernel.root))
    config = {"size": "512x512"}
    assert memory.allowed_memory(make_config(config)) == 63 * 2**20
    assert memory.allowed_memory(make_config({**config, "memory_gb": 2})) == 2 * GIB  # the user knows better


LOOP = """
import resource, threading
from wsigen.base.machine import keep_freed_memory
{first}
def fill():
    for _ in range(3):
        b"1" * 2**24, b"1" * 2**27
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"1" * 2**24, b"1" * 2**27
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=fill)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory as they like")
def test_what_a_thread_frees_it_gets_again():
    """Blocks as large as a decoder's: no page is fetched twice; by default all are, each time (be they 2 MiB each)."""

    def faults(first):
        command = [sys.executable, "-c", LOOP.format(first=first)]
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=bare).stdout)

    assert 10 * faults("keep_freed_memory()") < faults("")


@pytest.mark.parametrize("mine", [None, "3"])
def test_worker_processes_are_started_so(mine, monkeypatch):
    """Unless the user's own environment says otherwise."""
    for name in kept_environment():
        monkeypatch.delenv(name, raising=False)
    if mine:
        monkeypatch.setenv("MALLOC_ARENA_MAX", mine)
    with open_cluster(Workers(1, True)) as cluster:
        for name, value in kept_environment().items():
            expected = mine if mine and name == "MALLOC_ARENA_MAX" else str(value)
            assert list(cluster.ask_all(os.environ.get, name).values()) == [expected]


def options(environment, refuse=0):
    """What is set by a glibc that takes no threshold above ``refuse``."""
    found = {}

    def mallopt(number, value):
        if number == -3 and refuse and value > refuse:
            return 0
        found[number] = value
        return 1

    set_options(mallopt, environment)
    return found


def test_an_old_glibc_takes_what_it_can():
    """It refuses thresholds above 32 MiB; where it takes none, nothing else is set, which would only harm."""
    assert options({})[-3] == LARGEST
    assert options({}, refuse=LARGEST_OLD)[-3] == LARGEST_OLD
    assert set(options({}, refuse=LARGEST_OLD)) == {-1, -3, -8}
    assert options({}, refuse=1) == {}


@pytest.mark.parametrize(
    ("version", "largest"), [("2.28", LARGEST_OLD), ("2.34", LARGEST_OLD), ("2.35", LARGEST), ("2.36.1", LARGEST)]
)
def test_workers_of_an_old_glibc_are_told_what_it_takes(monkeypatch, version, largest):
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("glibc", version))
    assert kept_environment()["MALLOC_MMAP_THRESHOLD_"] == largest


def test_what_the_user_set_stays():
    """But not what dask's nannies set."""
    assert options({"MALLOC_TRIM_THRESHOLD_": "65536"}) == options({})
    assert set(options({"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"})) == {-3}
