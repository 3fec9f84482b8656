"""Temporary folders: gone with their process, also with one that was killed, and never another user's."""

import subprocess
import sys
import tempfile

import pytest

from wsigen.storage.scratch import HELD, Scratch, sweep_scratch

PREFIX = "wsigen-test-"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_at_the_end():
    with Scratch(PREFIX) as folder:
        (folder / "file").write_text("content")
        sweep_scratch(PREFIX)
        assert (folder / "file").exists()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_that_of_a_killed_process_is_swept_by_the_next(place):
    program = f"from wsigen.storage.scratch import Scratch; import os; s = Scratch({PREFIX!r}); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program], env={"TMPDIR": str(place), "PYTHONPATH": ":".join(sys.path)}, check=False)
    assert len(list(place.glob(f"{PREFIX}*"))) == 1
    with Scratch(PREFIX) as folder:
        assert list(place.iterdir()) == [folder]


def test_links_and_folders_without_an_owner_stay(place, tmp_path_factory):
    precious = tmp_path_factory.mktemp("precious")
    (precious / HELD).touch()
    (place / f"{PREFIX}link").symlink_to(precious)
    (place / f"{PREFIX}other").mkdir()
    (place / f"{PREFIX}other" / HELD).symlink_to(precious / HELD)
    (place / f"{PREFIX}new").mkdir()
    sweep_scratch(PREFIX)
    assert (precious / HELD).exists()
    assert len(list(place.iterdir())) == 3
