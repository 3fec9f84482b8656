"""Workers of this machine: what other users of it can see, reach and change of them (nothing)."""

import gc
import os
import stat
import sys
from pathlib import Path

import psutil
import pytest
from distributed import Client, Scheduler, Security, Worker

from wsigen.run.engine.workers import Workers, open_cluster


@pytest.fixture
def own_tmp(tmp_path, monkeypatch):
    """A place for temporary files that is empty."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def listening(process):
    return [c.laddr for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]


def work(cluster):
    cluster.submit("label", abs, -3)
    return cluster.take(30)


def test_threads_listen_nowhere():
    before = listening(psutil.Process())
    with open_cluster(Workers(2, False)) as cluster:
        assert work(cluster) == ("label", 3)
        assert listening(psutil.Process()) == before


def test_processes_listen_on_loopback_and_want_their_certificate():
    before = {address.port for address in listening(psutil.Process())}
    with open_cluster(Workers(2, True)) as cluster:
        assert work(cluster) == ("label", 3)
        here = psutil.Process()
        opened = [a for p in (here, *here.children(recursive=True)) for a in listening(p) if a.port not in before]
        assert opened
        assert {a.ip for a in opened} == {"127.0.0.1"}
        for address in opened:
            for url, security in (("tcp", None), ("tls", Security.temporary())):
                with pytest.raises((OSError, TimeoutError)):
                    Client(f"{url}://127.0.0.1:{address.port}", security=security, timeout="2s", set_as_default=False)


@pytest.mark.parametrize("processes", [False, True])
def test_a_link_laid_under_dasks_usual_files_leads_nowhere(own_tmp, processes):
    victim = own_tmp / "victim"
    victim.write_text("precious")
    (own_tmp / "dask-scratch-space").mkdir()
    (own_tmp / "dask-scratch-space" / "global.lock").symlink_to(victim)
    with open_cluster(Workers(1, processes)) as cluster:
        assert work(cluster) == ("label", 3)
        made = [p for p in own_tmp.iterdir() if p.name.startswith("wsigen-workers-")]
        assert [stat.S_IMODE(p.stat().st_mode) for p in made] == [0o700]
        assert made[0].stat().st_uid == os.getuid()
    assert victim.read_text() == "precious"
    assert not [p for p in own_tmp.iterdir() if p.name.startswith("wsigen-workers-")]
    assert sorted(p.name for p in Path(own_tmp, "dask-scratch-space").iterdir()) == ["global.lock"]


def servers():
    gc.collect()
    return {id(o) for o in gc.get_objects() if isinstance(o, Scheduler | Worker | Client)}


def test_a_cluster_that_was_closed_is_gone():
    before = servers()  # of other tests in this process
    for _ in range(2):
        with open_cluster(Workers(2, False)) as cluster:
            work(cluster)
        del cluster
    assert not servers() - before


@pytest.mark.parametrize("processes", [False, True])
def test_no_folder_of_a_cluster_is_searched_for_modules(processes):
    searched, known = list(sys.path), set(sys.path_importer_cache)
    with open_cluster(Workers(1, processes)) as cluster:
        assert work(cluster) == ("label", 3)
        assert sys.path == searched
    assert sys.path == searched
    assert not [path for path in set(sys.path_importer_cache) - known if "wsigen-workers-" in path]
