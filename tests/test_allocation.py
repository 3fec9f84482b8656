"""Freed memory is kept: by this process, by its threads, and by workers that are started for a run."""

import os
import platform
import subprocess
import sys

import pytest

from wsigen.allocation import KEPT
from wsigen.engine.opening import open_cluster

LOOP = """
import resource, threading
from wsigen.allocation import keep_freed_memory
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
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert 10 * faults("keep_freed_memory()") < faults("")


@pytest.mark.parametrize("mine", [None, "3"])
def test_worker_processes_are_started_so(mine, monkeypatch):
    """Unless the user's own environment says otherwise."""
    if mine:
        monkeypatch.setenv("MALLOC_ARENA_MAX", mine)
    with open_cluster(1, True, None) as cluster:
        for name, value in KEPT.items():
            expected = mine if mine and name == "MALLOC_ARENA_MAX" else str(value)
            assert list(cluster.ask_all(os.environ.get, name).values()) == [expected]
