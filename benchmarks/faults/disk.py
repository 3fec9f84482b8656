"""A small disk for the run that can be filled: a file system in memory, or, without the right to mount, a limit on workers."""

from __future__ import annotations

import errno
import resource
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Disk:
    """Where the run directory lies.

    Attributes
    ----------
    folder:
        The file system's mount point, or an ordinary folder.
    mounted:
        Whether it is a file system of its own.
    """

    folder: Path
    mounted: bool

    @property
    def kind(self) -> str:
        """For the report."""
        return "tmpfs filled up" if self.mounted else "RLIMIT_FSIZE of 0 on the workers"

    def fill(self, workers: list[int]) -> None:
        """Leave no byte free (or let the workers write none)."""
        if self.mounted:
            with suppress(OSError), self._filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(2**16))
            return
        _limit(workers, 0)

    def free(self, workers: list[int]) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)
        if not self.mounted:
            _limit(workers, resource.RLIM_INFINITY)

    def close(self) -> None:
        """Unmount."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


def make_disk(folder: Path, size_mib: int) -> Disk:
    """Mount a tmpfs of this size if this machine permits it."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return Disk(folder, False)
    return Disk(folder, done.returncode == 0)


def _limit(pids: list[int], size: int) -> None:
    """Bound the size of files that processes may write; Python sees EFBIG."""
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            process.rlimit(resource.RLIMIT_FSIZE, (size, process.rlimit(resource.RLIMIT_FSIZE)[1]))
