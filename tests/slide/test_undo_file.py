"""The way back from replaced pixels, and what is left when a splice is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slide_making import make_slide, tissue

import wsigen.slide.undo_file
from wsigen.base.errors import OutputError
from wsigen.base.geometry import Box
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.splice import Patch, replace_pixels, restore
from wsigen.slide.undo_file import MAGIC

SIDE = 600
BOX = Box(100, 100, 400, 400)
PATCH = Patch(BOX, tissue(300, 300, seed=1), np.ones((300, 300), bool))

STOPPED = """
import os, resource, signal, sys
import numpy as np
from wsigen.base.geometry import Box
from wsigen.slide import splice, tiff_patch
source, output, undo, how = sys.argv[1:]
finish = tiff_patch.TiffPatch.finish
def stop(self):
    finish(self)
    os.kill(os.getpid(), signal.SIGKILL)
if how == "killed":
    tiff_patch.TiffPatch.finish = stop
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(how),) * 2)
pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
patch = splice.Patch(Box(100, 100, 400, 400), pixels, np.ones((300, 300), bool))
try:
    splice.replace_pixels(source, output, [patch], undo=undo)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = PyramidSpec(SIDE, SIDE, 0.5, 20, "jpeg")
    return make_slide(tmp_path_factory.mktemp("undo"), spec, tissue(SIDE, SIDE))


def test_files_beside_come_back_with_it(slide: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_bytes(b"as they were")
    output, undo = tmp_path / "out.ome.tiff", tmp_path / "undo"
    replace_pixels(slide, output, [PATCH], undo=undo, beside={"notes": notes})
    (tmp_path / "new").write_bytes(b"made by the edit")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(undo.read_bytes().replace(b"as they were", b"as they ware"))
    edited = output.read_bytes()
    with pytest.raises(OutputError, match="damaged"):
        restore(output, damaged, {"notes": tmp_path / "back"})
    assert output.read_bytes() == edited
    assert not (tmp_path / "back").exists()
    restore(output, undo, {"notes": tmp_path / "back", "none": tmp_path / "new"})
    assert (tmp_path / "back").read_bytes() == b"as they were"
    assert not (tmp_path / "new").exists()
    assert output.read_bytes() == slide.read_bytes()


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.integers(0, SIDE - 1)] * 4, st.integers(0, 99), st.booleans()), min_size=1, max_size=3))
def test_a_chain_of_any_edits_is_undone_byte_for_byte(
    tmp_path: Path, slide: Path, edits: list[tuple[int, int, int, int, int, bool]]
) -> None:
    names = [slide]
    for i, (y0, x0, y1, x1, seed, described) in enumerate(edits):
        box = Box(min(y0, y1), min(x0, x1), max(y0, y1) + 1, max(x0, x1) + 1)
        rng = np.random.default_rng(seed)
        patch = Patch(box, rng.integers(0, 256, (*box.shape, 3), np.uint8), rng.random(box.shape) < 0.1 * (seed % 11))
        names.append(tmp_path / f"{i}.ome.tiff")
        replace_pixels(
            names[-2], names[-1], [patch], description=f"edit {i}" if described else None, undo=tmp_path / f"{i}.undo"
        )
    contents = [name.read_bytes() for name in names]
    for i in reversed(range(len(edits))):
        restore(names[i + 1], tmp_path / f"{i}.undo")
        assert names[i + 1].read_bytes() == contents[i]


def test_what_undoes_another_file_is_refused(tmp_path: Path, slide: Path) -> None:
    one, two = tmp_path / "1.ome.tiff", tmp_path / "2.ome.tiff"
    replace_pixels(slide, one, [PATCH], undo=tmp_path / "1.undo")
    elsewhere = Patch(BOX.shift(190, 190), PATCH.pixels, PATCH.mask)
    replace_pixels(one, two, [elsewhere], undo=tmp_path / "2.undo")
    was = two.read_bytes()
    with pytest.raises(OutputError, match="another file"):
        restore(two, tmp_path / "1.undo")
    assert two.read_bytes() == was
    assert len(list(tmp_path.iterdir())) == 4


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_undo_file_changes_nothing(tmp_path: Path, slide: Path, data: st.DataObject) -> None:
    output, undo = tmp_path / "new.ome.tiff", tmp_path / "new.undo"
    if not undo.exists():
        replace_pixels(slide, output, [PATCH], undo=undo)
    was, good = output.read_bytes(), undo.read_bytes()
    spoilt = bytearray(good)
    at = data.draw(st.one_of(st.integers(0, len(good) - 1), st.integers(len(good) - 400, len(good) - 1)))
    spoilt[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.just(len(good)), st.integers(0, len(good))))
    other = tmp_path / "spoilt.undo"
    other.write_bytes(spoilt[:cut])
    try:
        restore(output, other)
    except OutputError:
        assert output.read_bytes() == was
    else:  # the spelling of a number, say: the bytes are the parent's all the same
        assert output.read_bytes() == slide.read_bytes()
        output.write_bytes(was)


@pytest.mark.parametrize(
    "table", [[], {"size": -1}, {"size": 9, "sha256": "", "pieces": [[5, 5]]}, {"size": 1e9, "sha256": 0, "pieces": 3}]
)
def test_tables_of_a_stranger_are_refused(tmp_path: Path, slide: Path, table: object) -> None:
    undo, text = tmp_path / "x.undo", json.dumps(table).encode()
    undo.write_bytes(MAGIC + text + len(text).to_bytes(8, "little"))
    output = tmp_path / "x.ome.tiff"
    output.write_bytes(slide.read_bytes())
    with pytest.raises(OutputError, match="cannot undo"):
        restore(output, undo)
    assert output.read_bytes() == slide.read_bytes()


def test_more_than_could_be_undone_is_refused_and_leaves_nothing(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsigen.slide.undo_file, "_MOST_TABLE", 99)
    with pytest.raises(OutputError, match="keep no undo"):
        replace_pixels(slide, tmp_path / "new.ome.tiff", [PATCH], undo=tmp_path / "new.undo")
    assert list(tmp_path.iterdir()) == []


def stopped(tmp_path: Path, slide: Path, how: str) -> subprocess.CompletedProcess[str]:
    output, undo = tmp_path / "new.ome.tiff", tmp_path / "new.undo"
    command = [sys.executable, "-c", STOPPED, str(slide), str(output), str(undo), how]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_a_kill_leaves_what_was_there(tmp_path: Path, slide: Path) -> None:
    output = tmp_path / "new.ome.tiff"
    output.write_bytes(b"older")
    assert stopped(tmp_path, slide, "killed").returncode == -signal.SIGKILL
    assert output.read_bytes() == b"older"
    assert not (tmp_path / "new.undo").exists()


@pytest.mark.parametrize("room", [10_000, 300])  # no room for a copy, or not for all new tiles
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(tmp_path: Path, slide: Path, room: int) -> None:
    most = slide.stat().st_size + 10_000 if room == 10_000 else room
    done = stopped(tmp_path, slide, str(most))
    assert done.stdout.startswith("OutputError")
    assert "free disk space" in done.stdout
    assert list(tmp_path.iterdir()) == []
