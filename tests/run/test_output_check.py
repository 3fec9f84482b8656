"""Outputs: what cannot be written at the end is refused at the beginning, and a slide is made by one run at a time."""

import os
import subprocess
import sys

import pytest
from runs import settings_of

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.errors import OutputError, RunError
from wsigen.run import generate as generation
from wsigen.run.generate import generate, resume
from wsigen.run.output_check import check_output, held_output, try_output
from wsigen.run.outputs import files_of
from wsigen.slide.pyramid import PyramidSpec
from wsigen.storage.files import remove_leftovers
from wsigen.storage.local import LocalFolder

TABLE = ClassTable((TissueClass("Glass", (235, 235, 240), True), TissueClass("Tumor", (200, 0, 0))))
SLIDE = PyramidSpec(40_000, 30_000, 0.5, 20.0)


def tried(output):
    check_output(output, overwrite=False)
    try_output(files_of(output), SLIDE, TABLE)


@pytest.mark.parametrize("name", ["slide.ome.tiff", "Präparat 3.ome.tif", "x" * 229 + ".ome.tiff"])
def test_a_trial_leaves_nothing(tmp_path, name):
    tried(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 230 + ".ome.tiff", "x" * 300 + ".ome.tiff", "a\udcff.ome.tiff", "a\0b.ome.tiff"])
def test_a_name_that_the_end_could_not_write_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"cannot be written: .*; choose another name"):
        tried(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_um_per_px_that_no_tiff_holds_are_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        try_output(files_of(tmp_path / "slide.ome.tiff"), PyramidSpec(4096, 4096, 1e-9, 20.0), TABLE)
    assert list(tmp_path.iterdir()) == []


def test_a_slide_is_made_by_one_run_at_a_time(tmp_path):
    slide = tmp_path / "slide.ome.tiff"
    with held_output(slide):
        with pytest.raises(OutputError, match=f"another run makes it \\(process {os.getpid()} on "), held_output(slide):
            pass
        with held_output(tmp_path / "other.ome.tiff"):
            pass
    assert list(tmp_path.iterdir()) == []
    program = f"""
from pathlib import Path; from wsigen.run import generate as generation
from wsigen.run.generate import generate, resume
from wsigen.run.output_check import held_output; import os
with held_output(Path({str(slide)!r})): os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with held_output(slide):
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed_to_the_lock(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".slide.ome.tiff.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="cannot be locked"), held_output(tmp_path / "slide.ome.tiff"):
        pass
    assert (tmp_path / "precious").read_text() == "content"


@pytest.mark.parametrize("kind", ["hard link", "pipe"])
def test_what_lies_in_the_place_of_a_lock_is_not_emptied(tmp_path, kind):
    """A hard link is another name of somebody's file; a pipe would be waited for."""
    place = tmp_path / ".slide.ome.tiff.lock"
    (tmp_path / "precious").write_text("content")
    os.link(tmp_path / "precious", place) if kind == "hard link" else os.mkfifo(place)
    with pytest.raises(OutputError, match=r"cannot be locked.*a link"), held_output(tmp_path / "slide.ome.tiff"):
        pass
    with pytest.raises(RunError, match="cannot be opened"), LocalFolder(tmp_path).lock(place.name):
        pass
    assert (tmp_path / "precious").read_text() == "content"


def test_a_link_that_looks_like_a_leftover_goes_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "precious").write_text("content")
    (tmp_path / ".0123456789ab.slide.jpg").symlink_to(tmp_path / "theirs")
    remove_leftovers(tmp_path / "slide.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert (tmp_path / "theirs" / "precious").read_text() == "content"


def test_two_runs_that_replace_one_slide_do_not_touch_each_other(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, steps=1) | {"overwrite": True, "keep_run": False}
    out = tmp_path / "slide.ome.tiff"
    tried = []

    def watch(stage):
        if stage.name == "write slide" and not tried:
            tried.append(stage.name)
            with pytest.raises(OutputError, match="another run makes it"):
                generate(out, run_dir=tmp_path / "other.run", **settings)
            assert not (tmp_path / "other.run").exists()  # it is known before the other one has made anything
            with pytest.raises(RunError, match="held by another driver"):
                resume(tmp_path / "slide.run", workers=1)

    assert generate(out, watch=watch, **settings).slide == out
    assert tried
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_link_that_leads_nowhere_is_replaced_with_overwrite_alone(bundle, tmp_path):
    (tmp_path / "slide.ome.tiff").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"slide\.ome\.tiff: exists already"):
        generate(tmp_path / "slide.ome.tiff", **settings_of(bundle, tmp_path, steps=1))


def test_an_end_that_fails_says_how_to_go_on(bundle, tmp_path, monkeypatch):
    settings = settings_of(bundle, tmp_path, steps=1) | {"keep_run": False}

    def full(*args):
        raise OSError(28, "No space left on device")

    write = generation.write_outputs
    monkeypatch.setattr(generation, "write_outputs", full)
    with pytest.raises(OutputError, match=r"No space left .*'wsigen resume \S+slide\.run'; add --output OTHER"):
        generate(tmp_path / "slide.ome.tiff", **settings)
    monkeypatch.setattr(generation, "write_outputs", write)
    assert resume(tmp_path / "slide.run").slide.is_file()
