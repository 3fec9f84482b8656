"""Kills at awkward moments, late writers, damage at rest: the same slide, and nothing left over."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
from runs import interrupt_in_the_middle, settings_of, work_of

from wsigen.base.errors import ResourceError, RunError, UnfitWorkerError
from wsigen.run import generate as generation
from wsigen.run import rundir
from wsigen.run.engine import dispatch
from wsigen.run.generate import generate, resume
from wsigen.run.tasks import context
from wsigen.run.tasks.context import RunContext
from wsigen.run.tasks.perform import Task, perform
from wsigen.storage import local
from wsigen.storage.files import atomic_path, remove_tree
from wsigen.storage.zarr_stores import ChunkFiles


class StopError(BaseException):
    """Stands for SIGKILL: nothing in the program catches it."""


@pytest.fixture(scope="module")
def finished(bundle, tmp_path_factory):
    """A finished run that was kept."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, generate(folder / "a.ome.tiff", **settings_of(bundle, folder, steps=1)).level0_sha256


@pytest.fixture
def kept(finished, tmp_path):
    """A run directory to be cleared, of a slide that is there."""
    folder, _ = finished
    spare = tmp_path / "spare"
    shutil.copytree(folder / "a.run", spare)
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files:
        (tmp_path / path.name).hardlink_to(path)  # the very file, by which a run knows its own
    yield folder / "a.run"
    shutil.rmtree(folder)
    shutil.copytree(spare, folder / "a.run")
    for path in files:
        path.hardlink_to(tmp_path / path.name)


@pytest.mark.parametrize("steps_of_clearing", range(9))
def test_stopped_while_it_clears(finished, kept, monkeypatch, steps_of_clearing):
    """Wherever clearing is cut short, resume ends it without making anything again."""
    left = steps_of_clearing
    remove = local.remove_leftovers

    def cut(path):
        nonlocal left
        left -= 1
        if left < 0:
            raise StopError
        remove(path)

    monkeypatch.setattr(local, "remove_leftovers", cut)
    try:
        result = resume(kept, keep_run=False)
    except StopError:
        monkeypatch.undo()
        if not (kept / rundir.FINISHED).exists():
            return  # only the empty folder was left
        slide = kept.with_name("a.ome.tiff")
        written = slide.stat().st_mtime_ns
        result = resume(kept)
        assert slide.stat().st_mtime_ns == written
    assert result.level0_sha256 == finished[1]
    assert result.area_px["Tumor"] > 0
    assert result.script.exists()
    assert not kept.exists()


def test_a_finished_run_whose_slide_is_gone_is_made_anew(bundle, tmp_path, monkeypatch):
    settings = settings_of(bundle, tmp_path, steps=1, keep_run=False)
    monkeypatch.setattr(local.LocalFolder, "discard", stop)
    with pytest.raises(StopError):
        generate(tmp_path / "a.ome.tiff", **settings)
    monkeypatch.undo()
    first = (tmp_path / "a.ome.tiff").read_bytes()
    for path in tmp_path.glob("a.*"):
        if path.is_file():
            path.unlink()
    result = generate(tmp_path / "a.ome.tiff", **settings)
    assert result.slide.read_bytes() == first
    assert not (tmp_path / "a.run").exists()


def stop(*args):
    raise StopError


def test_who_writes_late_leaves_nothing(bundle, tmp_path):
    """A worker that comes back when the run is cleared fails, and makes no folder anew."""
    settings = settings_of(bundle, tmp_path, steps=1)
    generate(tmp_path / "a.ome.tiff", **settings)
    run_dir = tmp_path / "a.run"
    run = RunContext(run_dir)
    values = run.passes[-1].state.read_latents(1, run.passes[-1].plan.grid.box((1, 1)))
    blob = next((work_of(run_dir) / "spool").iterdir()).read_bytes()
    resume(run_dir, keep_run=False)
    with pytest.raises(FileNotFoundError):
        run.passes[-1].state.write_latents(1, (1, 1), values)
    with pytest.raises(FileNotFoundError):
        run.spool.write((0, 0), blob)
    assert not run_dir.exists()


def test_blocks_that_a_power_cut_took_are_made_again_together(bundle, tmp_path, monkeypatch):
    """All of them empty, though they have a name: the slide is written a second time and no third."""
    settings = settings_of(bundle, tmp_path, keep_run=True, size=(2100, 2100))
    whole = generate(tmp_path / "a.ome.tiff", **settings).level0_sha256
    spooled = list((work_of(tmp_path / "a.run") / "spool").glob("*.blk"))
    assert len(spooled) == 4
    for path in spooled:
        path.write_bytes(b"")
    written = []
    write = generation.write_outputs
    monkeypatch.setattr(generation, "write_outputs", lambda *given: written.append(1) or write(*given))
    assert resume(tmp_path / "a.run").level0_sha256 == whole
    assert len(written) == 2


def test_what_is_written_late_into_a_run_that_is_kept_is_gone_at_its_end(bundle, tmp_path):
    """A worker that was thought dead comes back while the slide is written."""
    settings = settings_of(bundle, tmp_path, keep_run=True)
    generate(tmp_path / "a.ome.tiff", **settings)
    kept = RunContext(tmp_path / "a.run").passes[0].state.record()

    def write_late(stage):
        if stage.name == "write slide":
            state = RunContext(tmp_path / "b.run").passes[0].state
            box = state.grid.box((1, 1)).dilate(state.margin)
            state.write_partial(0, (1, 1), np.zeros((state.channels, *box.shape), np.float32))
            assert state.record() != kept

    generate(tmp_path / "b.ome.tiff", watch=write_late, **settings)
    assert RunContext(tmp_path / "b.run").passes[0].state.record() == kept


def test_what_was_left_unfinished_is_no_key(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path)
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=22)
    group = work_of(tmp_path / "cut.run") / "state.zarr" / "pass-0"
    record = RunContext(tmp_path / "cut.run").passes[0].state.record()
    beyond = max(h for steps in record.values() for h in steps) + 4
    for name in (f"latents/c/{beyond // 2}/0/1/.0123456789ab.1", f"partials/c/{beyond // 2}/1/1/0/0/.0123456789ab.0"):
        (group / name).parent.mkdir(parents=True, exist_ok=True)
        (group / name).write_bytes(b"half")
    assert RunContext(tmp_path / "cut.run").passes[0].state.record() == record
    assert resume(tmp_path / "cut.run").level0_sha256 == whole
    assert not list((tmp_path / "cut.run").rglob(".*"))


@pytest.mark.parametrize("name", ["", "pass-0", "pass-0/latents", "pass-0/classes", "pass-0/norm", "pass-0/activity"])
def test_damaged_metadata_is_written_again(finished, kept, name):
    for block in (work_of(kept) / "spool").iterdir():
        block.unlink()
    path = work_of(kept) / "state.zarr" / name / "zarr.json"
    path.write_bytes(path.read_bytes()[:-9])
    context._contexts.clear()  # as in a process of its own
    assert resume(kept).level0_sha256 == finished[1]


@pytest.mark.parametrize("seed", range(6))
def test_any_file_of_a_run_at_rest_may_be_damaged(bundle, tmp_path, seed):
    chance = random.Random(seed)
    settings = settings_of(bundle, tmp_path, steps=5, sampler="dpm++")
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=chance.randrange(10, 60))
    files = sorted(p for p in (work_of(tmp_path / "cut.run") / "state.zarr").rglob("*") if p.is_file() and "c" in p.parts)
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data) if seed % 2 else bytes(data[: len(data) // 2]))
    context._contexts.clear()  # as in a process of its own
    notes = []
    result = resume(tmp_path / "cut.run", watch=lambda stage: notes.append(stage.note))
    assert result.level0_sha256 == whole
    assert all("made again" in note for note in notes if note)  # told, and no pass starts over


def test_a_pass_starts_over_if_a_chunk_and_its_sources_are_lost(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, steps=5)
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=85)
    state = RunContext(tmp_path / "cut.run").passes[0].state
    for ij, steps in state.record().items():
        if ij[0] == 1:
            for h in steps:
                state.delete(h, ij)
    notes = set()
    result = resume(tmp_path / "cut.run", watch=lambda stage: notes.add(stage.note))
    assert result.level0_sha256 == whole
    assert any("starts over" in note for note in notes)


def fail_in_one_corner(run_dir, run_hash, threads, task, calls_at_once):
    if task.ij == (0, 0) and task.step == 0 and task.kind == "denoise":
        raise ValueError("odd shape")
    return perform(run_dir, run_hash, threads, task, calls_at_once)


def test_what_does_not_wait_for_a_failing_task_is_done(bundle, tmp_path, monkeypatch):
    """Five chunks a row: the farthest one ends its pass, though a task in the corner fails each time."""
    settings = {"model": str(bundle), "class_name": "Tumor", "size": (1200, 520), "steps": 2, "chunk": 32, "workers": 1}
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    monkeypatch.setattr(dispatch, "perform", fail_in_one_corner)
    notes = set()
    words = r"denoise step 0 of chunk \(0, 0\).* failed 3 times.*odd shape \(in test_faults\.py:\d+, on \S+\)"
    with pytest.raises(RunError, match=words):
        generate(tmp_path / "a.ome.tiff", watch=lambda stage: notes.add(stage.note), **settings)
    assert any("odd shape" in note for note in notes)
    record = RunContext(tmp_path / "a.run").passes[0].state.record()
    assert max(record[2, 4]) == 4
    assert max(record[0, 0]) == 0
    monkeypatch.undo()
    assert resume(tmp_path / "a.run").level0_sha256 == whole


def test_resume_asks_for_the_disk_it_still_needs(bundle, tmp_path, monkeypatch):
    settings = settings_of(bundle, tmp_path)
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=22)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**30, 2**30, 1000))
    with pytest.raises(ResourceError, match="free at"):
        resume(tmp_path / "cut.run")
    work = work_of(tmp_path / "cut.run")
    (work / "spool" / "ballast").write_bytes(bytes(2**24))  # what is there counts as done
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**30, 2**30, 2**22))
    assert resume(tmp_path / "cut.run").slide.exists()


def test_chunks_and_kept_inputs_reach_the_disk_before_their_names(bundle, tmp_path, monkeypatch):
    """What a power cut can lose: nothing that has a name."""
    flushed = set()
    fsync = os.fsync

    def note(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    result = generate(tmp_path / "a.ome.tiff", **settings_of(bundle, tmp_path, steps=1))
    run_dir = tmp_path / "a.run"
    files = [p for folder in (work_of(run_dir), run_dir / rundir.INPUTS) for p in folder.rglob("*") if p.is_file()]
    files += [run_dir / "run.json", result.slide, result.annotations, result.manifest, result.thumbnail, result.script]
    assert len(files) > 20
    late = [p for p in files if p.stat().st_ino not in flushed]
    assert all(p.suffix == ".blk" for p in late)  # blocks tell themselves that they are damaged, and are made again


def test_a_tree_that_others_write_into_is_removed(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "b").write_bytes(b"1")
    with pytest.raises(FileNotFoundError), atomic_path(tree / "a" / "c") as beside:
        interfere(tree, beside)
    assert list(tmp_path.iterdir()) == []
    remove_tree(tree)


def interfere(tree, beside):
    beside.write_bytes(b"late")
    remove_tree(tree)


def test_a_store_is_not_made_by_who_writes_to_it(tmp_path):
    import zarr

    with pytest.raises(FileNotFoundError):
        zarr.open_group(ChunkFiles(tmp_path / "state.zarr"), mode="r+")
    (tmp_path / "state.zarr").mkdir()
    array = zarr.create_array(ChunkFiles(tmp_path / "state.zarr"), shape=(4, 4), chunks=(2, 2), dtype="f4")
    array[:] = 1
    remove_tree(tmp_path / "state.zarr")
    with pytest.raises(FileNotFoundError):
        array[:] = 2
    assert list(tmp_path.iterdir()) == []


def test_a_late_task_of_a_cleared_run_is_an_error_and_no_folder(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, steps=1)
    generate(tmp_path / "a.ome.tiff", **settings)
    digest = RunContext(tmp_path / "a.run").spec.hash
    resume(tmp_path / "a.run", keep_run=False)
    with pytest.raises(UnfitWorkerError, match=r"run\.json"):
        perform(str(tmp_path / "a.run"), digest, 1, Task("start", 0, (1, 1)))
    assert not (tmp_path / "a.run").exists()


SLEEPY = """
import sys, time
import wsigen.run.engine.dispatch as run
def sleep_long(*args):
    import time
    time.sleep(60)
run.perform = sleep_long
if __name__ == "__main__":
    from wsigen.cli import main
    main()
"""


@pytest.mark.parametrize("more", [[], ["--processes"]])
def test_ctrl_c_does_not_wait_for_a_running_task(bundle, tmp_path, more):
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    command = [sys.executable, "sleepy.py", "generate", "a.ome.tiff", "--model", str(bundle), "--class", "Tumor"]
    command += ["--size", "600x600", "--steps", "1", "--workers", "1", *more]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        while "denoise" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(3)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
        assert time.monotonic() - begin < 30
    finally:
        process.kill()
    assert process.returncode == 130
    assert "wsigen resume" in err
