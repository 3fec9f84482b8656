from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from wsigen.storage.files import atomic_path, sha256, write_atomic


def test_the_file_appears_under_its_name_only(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with atomic_path(target) as beside:
        beside.write_bytes(b"new")
        assert beside.parent == tmp_path
        assert beside.suffix == ".bin"
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")

    def fail() -> None:
        with atomic_path(target) as beside:
            beside.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_have_two_temporary_files(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as two:
        assert one != two
        one.write_bytes(b"1")
        two.write_bytes(b"2")
    assert (tmp_path / "a").read_bytes() == b"1"  # the outer one is renamed last


def test_the_file_has_ordinary_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write_atomic(tmp_path / "a", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    write_atomic(tmp_path / "a", data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
