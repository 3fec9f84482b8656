"""A lock file that one process keeps."""

import errno
from pathlib import Path

import pytest

from wsigen.base.errors import OutputError
from wsigen.storage import files
from wsigen.storage.files import held


def busy(holder):
    return OutputError(f"{holder} has it")


def test_one_process_holds_it_and_it_goes_with_it(tmp_path: Path) -> None:
    place = tmp_path / "a.lock"
    with held(place, busy, "wait"):
        assert b"process" in place.read_bytes()
        with pytest.raises(OutputError, match=r"process \d+ on .* has it"), held(place, busy, "wait"):
            pass
        assert place.exists()
    assert not place.exists()


@pytest.mark.parametrize("must", [False, True])
def test_a_file_system_without_locks_is_refused_where_it_must_lock(tmp_path: Path, monkeypatch, must: bool) -> None:
    def cannot(file):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files, "lock_file", cannot)
    if must:
        with pytest.raises(OutputError, match="cannot be locked"), held(tmp_path / "a.lock", busy, "go elsewhere", must=True):
            pass
    else:
        with held(tmp_path / "a.lock", busy, "go elsewhere"):
            pass
        assert not (tmp_path / "a.lock").exists()


def test_a_full_disk_holds_the_lock_as_well(tmp_path: Path, monkeypatch) -> None:
    def full():
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(files, "holder_name", full)
    with held(tmp_path / "a.lock", busy, "wait"), pytest.raises(OutputError), held(tmp_path / "a.lock", busy, "wait"):
        pass
    assert not (tmp_path / "a.lock").exists()
