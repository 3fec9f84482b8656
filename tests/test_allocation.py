"""Freed memory is kept: by this process, by its threads, and by workers that are started for a run."""

import os
import platform
import subprocess
import sys

import pytest

from wsigen.base import allocation
from wsigen.base.allocation import LARGEST, LARGEST_OLD, kept_environment, set_options
from wsigen.run.engine.opening import open_cluster

LOOP = """
import resource, threading
from wsigen.base.allocation import keep_freed_memory
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
    with open_cluster(1, True, None) as cluster:
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
    monkeypatch.setattr(allocation.platform, "libc_ver", lambda: ("glibc", version))
    assert kept_environment()["MALLOC_MMAP_THRESHOLD_"] == largest


def test_what_the_user_set_stays():
    """But not what dask's nannies set."""
    assert options({"MALLOC_TRIM_THRESHOLD_": "65536"}) == options({})
    assert set(options({"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"})) == {-3}
