"""Temporary folders that go with their process; those of processes that were killed are removed by the next one."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from wsigen.storage.files import lock_file

HELD = "held"
"""A file in each that its process keeps locked; the operating system releases the lock with the process, however that ends."""


class Scratch:
    """A temporary folder, which its user alone can enter; it goes with this object, or with the process.

    Parameters
    ----------
    prefix : str
        Begins its name; folders of the same prefix whose process is no more are removed.

    Attributes
    ----------
    path : Path
        The folder.
    """

    def __init__(self, prefix: str) -> None:
        sweep_scratch(prefix)
        self._folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        new = self.path / f"{HELD}.new"
        self._file = new.open("w")
        with suppress(OSError):  # a file system that locks no files: nobody will take this folder for abandoned
            lock_file(self._file)
            new.replace(self.path / HELD)  # locked before it has the name by which others look

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()
        self._file.close()


def sweep_scratch(prefix: str) -> None:
    """Remove the folders of this user's processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        held = folder / HELD
        with suppress(OSError):  # gone meanwhile, or in use
            if not (_is_own(folder, stat.S_IFDIR) and _is_own(held, stat.S_IFREG)):
                continue  # the place is everybody's: names there may be another user's, or links
            with held.open("r+") as file:
                lock_file(file)
                shutil.rmtree(folder)


def _is_own(path: Path, kind: int) -> bool:
    """Whether a path itself, and not what a link leads to, is of a kind and of this user."""
    status = path.lstat()
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid()
