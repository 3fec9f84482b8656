"""Folders of runs: the same behaviour on a file system and on an object store, and one driver at a time."""

import errno
import gc
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import interrupt_in_the_middle, settings_of
from specs import spec_of

from wsigen.base.errors import ConfigError, OutputError, ResourceError, RunError
from wsigen.run.config import make_config
from wsigen.run.estimate.memory import demand_disk
from wsigen.run.generate import generate, resume
from wsigen.run.rundir import kept_inputs, make_run_dir
from wsigen.run.spec import WORK, RunSpec
from wsigen.run.store import RunStore
from wsigen.run.tasks import context
from wsigen.run.tasks.context import RunContext, run_context
from wsigen.slide.tiles import encode_block
from wsigen.storage import lease
from wsigen.storage.local import LocalFolder
from wsigen.storage.objects import ObjectFolder
from wsigen.storage.opening import absolute_place, as_place, is_url, open_folder, why_not_usable


@pytest.fixture(params=["files", "objects"])
def folder(request, tmp_path):
    """An empty folder."""
    if request.param == "files":
        (tmp_path / "run").mkdir()
        return open_folder(tmp_path / "run")
    return open_folder(f"memory://{tmp_path.name}/run")


KEYS = ["run.json", "state.zarr/zarr.json", "state.zarr/pass-0/c/0/1", "state.zarr/pass-0/c/0/12", "spool/a.blk"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "delete", "delete all"]), st.sampled_from(KEYS), st.binary(max_size=9)), max_size=30
    )
)
def test_a_folder_is_a_mapping(tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("folder")
    for folder in (LocalFolder(root), open_folder(f"memory://{root.name}/run")):
        expected = {}
        for what, key, data in steps:
            if what == "write":
                folder.write(key, data)
                expected[key] = data
            elif what == "delete all":
                gone = [key, *KEYS[: len(data)]]  # some of them never were
                folder.delete_all(gone)
                expected = {k: v for k, v in expected.items() if k not in gone}
            else:
                folder.delete(key)
                expected.pop(key, None)
        assert {key: folder.read(key) for key in folder.names()} == expected
        assert sorted(folder.names("state.zarr/pass-0")) == sorted(k for k in expected if k.startswith("state.zarr/pass-0/"))
        assert folder.size() == sum(map(len, expected.values()))
        assert all(folder.has(key) == (key in expected) for key in KEYS)
        for name in ("state.zarr", "spool", "run.json"):
            folder.discard(name)
        assert folder.names() == []


def test_what_is_missing_is_said(folder):
    with pytest.raises(FileNotFoundError):
        folder.read("nothing")
    with pytest.raises(FileNotFoundError):
        folder.stamp("nothing")
    folder.delete("nothing")
    folder.discard("nothing")
    assert not folder.has("nothing")
    assert folder.top() == []
    assert why_not_usable(folder) == ""
    assert folder.names() == []


def test_who_writes_when_the_run_is_over_fails(folder):
    folder.write("run.json", b"{}")
    spool = folder.sub("spool")
    spool.make()
    spool.write("a", b"1")
    assert folder.local("spool/a").read_bytes() == b"1"
    folder.discard("spool")
    folder.discard("run.json")
    with pytest.raises(FileNotFoundError):
        spool.write("b", b"2")
    assert folder.names() == []


def test_a_stamp_changes_with_the_value(folder):
    folder.write("run.json", b"1")
    first = folder.stamp("run.json")
    assert folder.stamp("run.json") == first
    folder.write("run.json", b"22")
    assert folder.stamp("run.json") != first


def test_one_driver_at_a_time(folder):
    with folder.lock("driver.lock") as lock:
        with pytest.raises(RunError, match="held by another driver"), folder.lock("driver.lock"):
            pass
        assert lock.lost == ""
    with folder.lock("driver.lock"):
        pass


@pytest.mark.parametrize("root", ["run", "run[1]"])
def test_objects_of_a_run_are_deleted_whatever_it_is_called(tmp_path, root):
    folder = open_folder(f"memory://{tmp_path.name}/{root}")
    for key in KEYS:
        folder.write(key, b"1")
    folder.delete_all(KEYS[1:])
    assert folder.has(KEYS[0])
    assert not any(folder.has(key) for key in KEYS[1:])


def test_a_run_in_an_object_store_deletes_many_keys_with_one_request(bundle, tmp_path, monkeypatch):
    """One that fails is sent again; in the end nothing is left that a driver on a disk would not have left."""
    batches, alone, away = [], [], [ConnectionError("reset"), TimeoutError("timed out")]
    delete_all = ObjectFolder.delete_all

    def counted(folder, keys):
        batches.append(len(keys))
        if keys and away:
            raise away.pop()
        delete_all(folder, keys)

    monkeypatch.setattr(ObjectFolder, "delete_all", counted)
    delete = ObjectFolder.delete
    monkeypatch.setattr(ObjectFolder, "delete", lambda folder, key: alone.append(key) or delete(folder, key))
    monkeypatch.setattr("wsigen.storage.objects.ObjectFolder.delete_at_once", 20)
    monkeypatch.setattr("wsigen.run.engine.dispatch.sleep", lambda seconds: None)
    settings = settings_of(bundle, tmp_path, steps=3, sampler="dpm++")
    place = f"memory://{tmp_path.name}/a.run"
    there = generate(tmp_path / "a.ome.tiff", run_dir=place, **settings)
    here = generate(tmp_path / "b.ome.tiff", run_dir=tmp_path / "b.run", **settings)
    assert there.level0_sha256 == here.level0_sha256
    state = {k for k in open_folder(tmp_path / "b.run").names() if "/c/" in k}
    assert {k for k in open_folder(place).names() if "/c/" in k} == state
    assert not [key for key in alone if "/c/" in key]
    assert sum(batches) >= 40
    assert len([n for n in batches if n]) <= 12


class Stub:
    """A store whose client tells errors as the test says."""

    def __init__(self, info=None, pipe=None):
        self._info, self._pipe, self.put = info or FileNotFoundError("no key"), pipe, []

    def info(self, path):
        if isinstance(self._info, Exception):
            raise self._info
        return self._info

    def pipe_file(self, path, data, mode="overwrite"):
        if self._pipe is not None:
            raise self._pipe
        self.put.append(path)


THERE = {"type": "file"}
REFUSED = [
    OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold"),  # MinIO's 412 as s3fs gives it
    OSError(errno.EIO, "ConditionalRequestConflict"),
    FileExistsError("here"),
]


@pytest.mark.parametrize("error", REFUSED)
def test_an_object_that_is_there_is_not_made_whatever_the_store_says(error):
    assert not ObjectFolder("stub://a/b", Stub(THERE, error), "a/b").create("lock", b"")


def test_an_object_that_cannot_be_made_is_an_error():
    with pytest.raises(OSError, match="no space"):
        ObjectFolder("stub://a/b", Stub(pipe=OSError(errno.EIO, "no space")), "a/b").create("lock", b"")
    assert ObjectFolder("stub://a/b", Stub(), "a/b").create("lock", b"")


@pytest.mark.parametrize(
    "error", [PermissionError("Forbidden"), OSError(errno.EBUSY, "SlowDown"), RuntimeError("session closed")]
)
def test_a_store_that_does_not_answer_says_neither_yes_nor_no(error):
    """Who asks deletes what is not there: a pass that "was not prepared", a run that "is none"."""
    folder = ObjectFolder("stub://a/b", Stub(error), "a/b")
    word = str(error).split()[-1]
    with pytest.raises(OSError, match=word) as told:
        folder.has("run.json")
    assert "stub://a/b" in str(told.value)
    with pytest.raises(OSError, match=word):
        RunStore(folder.sub("state.zarr")).has_pass(0)
    with pytest.raises(OSError, match=word):
        folder.sub("spool").write("a", b"1")
    assert not ObjectFolder("stub://a/b", Stub(), "a/b").has("run.json")
    assert not ObjectFolder("stub://a/b", Stub({"type": "directory"}), "a/b").has("run.json")


def test_a_probe_whose_writer_was_killed_is_a_runs_own(tmp_path, monkeypatch):
    for folder, place in (
        (open_folder(tmp_path / "a"), tmp_path / "a"),
        (f := open_folder(f"memory://{tmp_path.name}/a"), f.name),
    ):
        monkeypatch.setattr(type(folder), "delete", lambda *args: None)
        folder.make()
        assert why_not_usable(folder) == ""
        monkeypatch.undo()
        assert len(folder.top()) == 1
        assert make_run_dir(place, tmp_path / "a.ome.tiff").top() == folder.top()


@pytest.fixture
def empty_run(folder):
    """A specification without passes, in a folder."""
    spec = spec_of(passes=())
    spec.save(folder)
    return folder, spec


def test_a_worker_opens_a_runs_folder_once(empty_run, monkeypatch):
    folder, spec = empty_run
    opened = []
    monkeypatch.setattr(context, "open_folder", lambda place: opened.append(place) or open_folder(place))
    first = run_context(folder.name, spec.hash)
    assert run_context(folder.name, spec.hash) is first
    folder.write("run.json", folder.read("run.json"))  # made anew
    assert run_context(folder.name, spec.hash) is not first
    assert opened == [folder.name]


def test_a_specification_that_cannot_be_read_for_now_is_no_damaged_one(empty_run, monkeypatch):
    """The dispatcher tries a task again after an OSError; after a RunError the run would stop."""
    folder, spec = empty_run
    assert RunSpec.load(folder) == spec

    def away(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(type(folder), "read", away)
    with pytest.raises(OSError, match="Input/output error"):
        RunSpec.load(folder)
    monkeypatch.undo()
    folder.write("run.json", b"{")
    with pytest.raises(RunError, match="unreadable"):
        RunSpec.load(folder)


def test_a_kept_drawing_that_is_gone_is_one_line(folder):
    folder.write("wsigen-inputs/layout.geojson", b"{}")
    settings = make_config({"layout": "regions.geojson"})
    assert set(kept_inputs(folder, settings)) == {"layout"}
    with pytest.raises(RunError, match=r"the layout_classes kept as wsigen-inputs/layout_classes\.csv is missing"):
        kept_inputs(folder, make_config({"layout": "regions.geojson", "layout_classes": "classes.csv"}))


HOLDS = """
import sys, time
from wsigen.storage.opening import open_folder
folder = open_folder("memory://scratch/run")
folder.write("inputs/layout.geojson", b"{}")
print(folder.local("inputs/layout.geojson"), flush=True)
time.sleep(600)
"""


def test_copies_of_a_killed_driver_are_swept_and_those_of_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    options = {"env": environment, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDS], **options) as driver:
        copy = Path(driver.stdout.readline().strip())
        other = open_folder("memory://scratch/other")
        other.write("layout", b"{}")
        mine = other.local("layout")
        with other.lock("lock"):
            assert copy.is_file()
        driver.kill()
    assert copy.is_file()
    with other.lock("lock"):
        assert not list(tmp_path.glob(f"{copy.parent.parent.name}*"))
    assert mine.read_bytes() == b"{}"
    del other
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_the_disk_of_a_file_url_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    need = SimpleNamespace(disk_state=10**9, disk_output=0, disk_scratch=0)
    with pytest.raises(ResourceError, match=f"free at {tmp_path}"):
        demand_disk(need, f"file://{tmp_path}/a.run", tmp_path / "a.ome.tiff")


def test_places():
    assert is_url("s3://a/b")
    assert not is_url("a/b")
    assert as_place("s3://a/b/") == "s3://a/b"
    assert as_place("file:///a/b").as_posix() == "/a/b"
    assert absolute_place("a").is_absolute()
    with pytest.raises(ConfigError, match="Protocol not known"):
        open_folder("nonsense://a/b")
    with pytest.raises(ConfigError, match="prefix"):
        open_folder("memory://bucket")


class Clock:
    """Objects in memory, put at a time that the test sets."""

    name = "clock://x"

    def __init__(self):
        self.now, self.values = 0.0, {}

    def read(self, key):
        if key not in self.values:
            raise FileNotFoundError(key)
        return self.values[key][0]

    def write(self, key, data):
        self.values[key] = (data, self.now)

    def create(self, key, data):
        if key in self.values:
            return False
        self.write(key, data)
        return True

    def delete(self, key):
        self.values.pop(key, None)

    def modified(self, key):
        self.read(key)
        return datetime.fromtimestamp(self.values[key][1], UTC)


def another(host, process=1):
    return json.dumps({"token": "theirs", "host": host, "process": process}).encode()


def test_a_lease_that_was_not_renewed_is_taken_over(monkeypatch):
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    objects = Clock()
    objects.write("lock", another("elsewhere"))
    objects.now = lease.EXPIRES_S - 1
    with pytest.raises(RunError, match="process 1 on elsewhere, heard of 59 s ago"), lease.hold(objects, "lock"):
        pass
    assert list(objects.values) == ["lock"]
    objects.now = lease.EXPIRES_S
    with lease.hold(objects, "lock"):
        assert b"theirs" not in objects.read("lock")
    assert objects.values == {}


@pytest.mark.parametrize("content", [b"", b"[" * 10**5, b"[]", b'{"token": 1}', another("here", "x"), another("here", 2**70)])
def test_a_lock_that_says_nothing_is_anybodys(monkeypatch, content):
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    objects = Clock()
    objects.write("lock", content)
    with pytest.raises(RunError, match="another process, heard of 0 s ago"), lease.hold(objects, "lock"):
        pass
    objects.now = lease.EXPIRES_S
    with lease.hold(objects, "lock"):
        pass
    assert objects.values == {}


def test_a_dead_holder_of_this_machine_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    objects = Clock()
    dead = {"token": "theirs", "process": 2**22 + 1, **lease._machine()}
    objects.write("lock", json.dumps(dead).encode())
    with lease.hold(objects, "lock"):
        pass
    assert objects.values == {}
    for key in ("host", "boot", "processes"):
        objects.write("lock", json.dumps({**dead, key: "another"}).encode())
        with pytest.raises(RunError, match="held by another driver"), lease.hold(objects, "lock"):
            pass
    monkeypatch.setattr(lease, "_machine", lambda: {"host": dead["host"], "boot": None})
    objects.write("lock", json.dumps({**dead, "boot": None}).encode())
    with pytest.raises(RunError, match="held by another driver"), lease.hold(objects, "lock"):
        pass


class Twice(Clock):
    """The first answer is lost, so the client asks again."""

    def create(self, key, data):
        return super().create(key, data) and super().create(key, data)


def test_a_lock_that_was_put_twice_is_held():
    objects = Twice()
    with lease.hold(objects, "lock") as mine:
        mine.confirm()
        with pytest.raises(RunError, match="held by another driver"), lease.hold(objects, "lock"):
            pass
    assert objects.values == {}


def test_who_asks_hears_at_once_that_its_lease_is_lost():
    """A driver that slept, and has not come to renew it yet."""
    objects = Clock()
    with lease.hold(objects, "lock") as mine:
        mine.confirm()
        objects.write("lock", another("elsewhere"))
        assert mine.lost == ""
        with pytest.raises(RunError, match=r"clock://x: another driver .*elsewhere"):
            mine.confirm()
    assert b"theirs" in objects.read("lock")


def test_of_two_that_take_over_one_is_told(monkeypatch):
    objects = Clock()
    objects.write("lock", another("elsewhere"))
    objects.now = 2 * lease.EXPIRES_S
    monkeypatch.setattr(lease, "sleep", lambda seconds: objects.write("lock", another("elsewhere")))
    with pytest.raises(RunError, match="was faster"), lease.hold(objects, "lock"):
        pass
    assert b"theirs" in objects.read("lock")


def test_who_lost_its_lease_hears_of_it_and_leaves_the_other_alone(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    objects = Clock()
    with lease.hold(objects, "lock") as mine:
        time.sleep(0.3)
        assert mine.lost == ""
        objects.write("lock", another("elsewhere"))
        time.sleep(0.5)
        assert "elsewhere" in mine.lost
    assert b"theirs" in objects.read("lock")


def test_a_run_in_an_object_store_is_the_same(bundle, tmp_path):
    """Interrupted and gone on with; nothing stays in the store."""
    settings = settings_of(bundle, tmp_path, steps=2, keep_run=False)
    whole = generate(tmp_path / "whole.ome.tiff", **settings)
    place = f"memory://{tmp_path.name}/cut.run"
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", {**settings, "run_dir": place}, after=15)
    assert any("/state.zarr/pass-0/latents/c/" in name for name in open_folder(place).names())
    (tmp_path / "layout.geojson").unlink()  # the run has its own copy
    with pytest.raises(RunError, match="--output cut"):
        resume(place)  # a bucket has no folder for the slide
    result = resume(place, output=tmp_path / "cut.ome.tiff")
    assert result.level0_sha256 == whole.level0_sha256
    assert result.annotations.read_bytes() == whole.annotations.read_bytes()
    assert open_folder(place).names() == []


def test_who_writes_while_the_run_is_cleared_leaves_nothing(bundle, tmp_path, monkeypatch):
    place = f"memory://{tmp_path.name}/a.run"
    generate(tmp_path / "a.ome.tiff", run_dir=place, **settings_of(bundle, tmp_path, steps=1))
    late = RunContext(place)
    discard, refused = ObjectFolder.discard, []

    def interfered(folder, name):
        discard(folder, name)
        if WORK.fullmatch(name):
            with pytest.raises(FileNotFoundError):
                late.spool.write((0, 0), b"late")
            refused.append(name)

    monkeypatch.setattr(ObjectFolder, "discard", interfered)
    resume(place, output=tmp_path / "a.ome.tiff", keep_run=False)
    assert refused == [late.spec.work]
    assert open_folder(place).names() == []


@pytest.mark.parametrize("kind", ["files", "objects"])
def test_late_work_of_an_old_run_is_no_part_of_the_next_slide(bundle, tmp_path, kind):
    """A worker of a run that is over wakes up when another run is at the same place, and before that as well."""
    settings = settings_of(bundle, tmp_path, keep_run=False)
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    place = f"memory://{tmp_path.name}/a.run" if kind == "objects" else str(tmp_path / "a.run")
    generate(tmp_path / "a.ome.tiff", run_dir=place, **{**settings, "seed": 99, "keep_run": True})
    late = RunContext(place)
    written = late.passes[-1].state.write_latents
    values = np.zeros((late.passes[-1].state.channels, *late.passes[-1].plan.grid.box((0, 0)).shape), np.float32)
    resume(place, output=tmp_path / "a.ome.tiff", keep_run=False)
    folder = open_folder(place)
    folder.make()
    folder.write(f"{late.spec.work}/spool/00000_00000.blk", black(late))  # asked for run.json before it went
    interrupt_in_the_middle(tmp_path / "b.ome.tiff", {**settings, "run_dir": place}, after=25)
    assert not [name for name in folder.names() if name.startswith(late.spec.work)]
    with suppress(FileNotFoundError):
        late.spool.write((0, 0), black(late))
    with suppress(FileNotFoundError):
        written(late.passes[-1].plan.steps, (0, 0), values)
    assert resume(place, output=tmp_path / "b.ome.tiff").level0_sha256 == whole
    assert not folder.names()


def black(run):
    """A whole block of the run, of wrong pixels."""
    return encode_block(run.slide, (0, 0), np.zeros((*run.slide.grid.box((0, 0)).shape, 3), np.uint8))


def test_a_driver_that_lost_its_run_stops(bundle, tmp_path, monkeypatch):
    place = f"memory://{tmp_path.name}/a.run"

    made = []
    make = lease.Lease
    monkeypatch.setattr(lease, "Lease", lambda *args: made.append(make(*args)) or made[-1])

    def steal(stage):
        if stage.done == 5:
            made[0].lost = "process 1 on elsewhere"

    with pytest.raises(RunError, match="process 1 on elsewhere"):
        generate(tmp_path / "a.ome.tiff", watch=steal, run_dir=place, **settings_of(bundle, tmp_path, steps=1))
    assert not (tmp_path / "a.ome.tiff").exists()


@pytest.mark.parametrize("moment", ["write slide", "clear"])
def test_a_driver_that_woke_up_late_destroys_nothing(bundle, tmp_path, monkeypatch, moment):
    """Another one took over while it slept, just before it writes the slide, or before it clears."""
    place, before = f"memory://{tmp_path.name}/a.run", {}
    folder = open_folder(place)

    def steal(stage):
        if stage.name == "write slide" and stage.finished == (moment == "clear") and not before:
            folder.write("driver.lock", another("elsewhere"))
            before.update({key: folder.read(key) for key in folder.names()})

    settings = settings_of(bundle, tmp_path, steps=1, keep_run=False)
    with pytest.raises(RunError, match="process 1 on elsewhere"):
        generate(tmp_path / "a.ome.tiff", watch=steal, run_dir=place, **settings)
    assert before
    assert {key: folder.read(key) for key in folder.names()} == before
    assert (tmp_path / "a.ome.tiff").exists() == (moment == "clear")


@pytest.mark.parametrize("taken", [False, True])
def test_a_store_that_is_away_where_a_lease_is_asked_for_is_waited_for(bundle, tmp_path, monkeypatch, taken):
    """Every other question finds no answer; one that says that another driver holds the run now stops this one."""
    place, asked, told = f"memory://{tmp_path.name}/a.run", [], []
    renew = lease.Lease.renew

    def flaky(mine):
        asked.append(1)
        if len(asked) % 2:
            raise ConnectionError("the bucket does not answer")
        if taken and len(asked) == 4:
            open_folder(place).write("driver.lock", another("elsewhere"))
        renew(mine)

    monkeypatch.setattr(lease.Lease, "renew", flaky)
    monkeypatch.setattr(lease, "RENEW_S", 1000.0)
    monkeypatch.setattr("wsigen.run.engine.dispatch.sleep", lambda seconds: None)
    settings = {**settings_of(bundle, tmp_path, steps=1, keep_run=False), "run_dir": place}
    with pytest.raises(RunError, match="process 1 on elsewhere") if taken else nullcontext():
        generate(tmp_path / "a.ome.tiff", watch=lambda stage: told.append(stage.note), **settings)
    assert len(asked) == 4 if taken else len(asked) >= 6
    assert (tmp_path / "a.ome.tiff").exists() != taken
    assert any("does not answer" in note for note in told)


def test_objects_of_somebody_else_are_not_touched(bundle, tmp_path):
    place = f"memory://{tmp_path.name}/data"
    open_folder(place).write("precious.txt", b"1")
    with pytest.raises(RunError, match=r"precious\.txt"):
        generate(tmp_path / "a.ome.tiff", run_dir=place, **settings_of(bundle, tmp_path, steps=1))
    assert open_folder(place).names() == ["precious.txt"]


def test_a_run_directory_that_cannot_be_written(bundle, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        generate(tmp_path / "a.ome.tiff", run_dir=tmp_path / "file" / "run", **settings_of(bundle, tmp_path, steps=1))


def test_without_fcntl_modules_import_and_locks_say_what_to_do(tmp_path):
    """Windows has no such module: no ModuleNotFoundError, whoever asks."""
    code = (
        "import sys\nsys.modules['fcntl'] = None\n"
        "import wsigen.storage.objects\nfrom wsigen.storage.local import LocalFolder\n"
        f"sys.platform = 'win32'\nwith LocalFolder(__import__('pathlib').Path({str(tmp_path)!r})).lock('lock'):\n    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ResourceError: wsigen runs on Linux and macOS; on Windows use WSL2" in done.stderr


def test_a_place_that_no_path_can_name_is_refused():
    with pytest.raises(ConfigError, match="NUL character"):
        open_folder("a\0b")
