"""On a shared machine another user can change no file of a run, run no code in it, and reach no port without its key."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import ENVIRONMENT, running_scheduler

INTRUDER = Path(__file__).parent / "intruder.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root alone can become another user"),
]

DRIVER = """
import sys, time
from pathlib import Path
import wsigen

def watch(stage):
    if stage.done and not Path("ready").exists():
        Path("ready").touch()
    while Path("ready").exists() and not Path("go").exists():
        time.sleep(0.05)

if __name__ == "__main__":
    settings = {"model": sys.argv[1], "class_name": "Tumor", "size": (600, 600), "steps": 2, "workers": 2}
    wsigen.generate("a.ome.tiff", processes=sys.argv[2] == "processes", watch=watch, **settings)
"""


@pytest.fixture
def open_folder():
    """A folder that everybody may look into, as homes and scratch disks often are; tests' own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="wsigen-open-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def laid_by_nobody(folder, precious):
    """A place for temporary files that everybody writes into, where somebody has laid links under dask's usual names."""
    shared = folder / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "dask-scratch-space").mkdir()
    (shared / "dask-scratch-space" / "global.lock").symlink_to(precious)
    for path in (shared / "dask-scratch-space", shared / "dask-scratch-space" / "global.lock"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    return shared


@contextmanager
def running(folder, bundle, kind):
    """A driver in the middle of its run; it ends it afterwards, and must succeed."""
    precious = folder / "precious"
    precious.write_text("precious")
    environment = {**ENVIRONMENT, "TMPDIR": str(laid_by_nobody(folder, precious)), "PYTHONPATH": os.pathsep.join(sys.path)}
    (folder / "drive.py").write_text(DRIVER)
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "drive.py", str(bundle), kind]
        driver = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        wait_for(folder / "ready", driver)
        yield driver.pid
        (folder / "go").touch()
        assert driver.wait(120) == 0, (folder / "log").read_text()
        assert precious.read_text() == "precious"
    finally:
        driver.kill()
        driver.wait()


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, path.with_name("log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def intrude(driver, tmp_path, *folders):
    (tmp_path / "folders.json").write_text(json.dumps([str(folder) for folder in folders]))
    command = [sys.executable, str(INTRUDER), str(driver), str(tmp_path / "folders.json")]
    environment = {**ENVIRONMENT, "TMPDIR": "/tmp"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_another_user_changes_nothing_and_reaches_nothing(bundle, tmp_path, open_folder, kind):
    with running(open_folder, bundle, kind) as driver:
        assert list((open_folder / "tmp").glob("wsigen-workers-*"))
        own = [path for path in open_folder.iterdir() if path.name != "tmp"]
        found = intrude(driver, tmp_path, open_folder / "a.run", *own, *(open_folder / "tmp").glob("wsigen-*"))
    assert bool(found["ports"]) == (kind == "processes")  # threads listen nowhere
    assert found == {"ports": found["ports"], "answered": [], "unix": [], "changed": []}
    assert not list(open_folder.rglob("intruder"))


def test_the_intruder_finds_what_is_open(tmp_path, open_folder):
    """A scheduler as dask's own command starts it, and a folder for everybody: so that the test above says something."""
    import psutil

    (open_folder / "wide").mkdir()
    (open_folder / "wide").chmod(0o777)
    (open_folder / "wide" / "file").touch()
    with running_scheduler(tmp_path) as address:
        port = int(address.rpartition(":")[2])
        (scheduler,) = [p for p in psutil.Process().children() if port in {c.laddr.port for c in p.net_connections()}]
        found = intrude(scheduler.pid, tmp_path, open_folder)
    assert port in found["ports"]
    assert port in found["answered"]
    assert str(open_folder / "wide") in found["changed"]
