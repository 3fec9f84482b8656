"""A temporary folder of this process; one whose process was killed is removed by the next driver on this machine."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "wsigen-inputs-"
"""Of the names of such folders, in the system's place for temporary files."""

HELD = "held"
"""A file in each that its process keeps locked; the operating system releases the lock with the process, however that ends."""


class Scratch:
    """A folder that goes with this object, or with the process.

    Attributes
    ----------
    path:
        The folder.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX)
        self.path = Path(self._folder.name)
        new = self.path / f"{HELD}.new"
        self._file = new.open("w")
        with suppress(OSError):  # a file system that locks no files: nobody will take this folder for abandoned
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.replace(self.path / HELD)  # locked before it has the name by which others look


def sweep_scratch() -> None:
    """Remove the folders of this user's processes that are no more."""
    for held in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{HELD}"):
        with suppress(OSError), held.open("r+") as file:  # of another user, in use, or gone meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(held.parent)
