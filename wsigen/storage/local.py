"""A run's folder as a folder of a file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsigen.base.errors import RunError
from wsigen.storage.files import (
    holder_name,
    lock_file,
    make_below,
    open_lock,
    remove_leftovers,
    remove_tree,
    target_of_leftover,
    write_atomic,
)
from wsigen.storage.folder import Folder, Lock

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from wsigen.storage.zarr_stores import ChunkFiles


@dataclass(frozen=True, slots=True)
class LocalFolder(Folder):
    """Values are files, written beside, flushed if they must be, and renamed (``wsigen.storage.files``).

    Attributes
    ----------
    path : Path
        The folder. It is made by ``make`` alone, never by who writes into it.
    """

    path: Path

    @property
    def name(self) -> str:
        """The absolute path."""
        return str(self.path.absolute())

    def sub(self, name: str) -> LocalFolder:
        """A folder in this one."""
        return LocalFolder(self.path / name)

    def read(self, key: str) -> bytes:
        """Bytes of a file."""
        return (self.path / key).read_bytes()

    def write(self, key: str, data: Buffer, flush: bool = True) -> None:
        """Write a file; folders between this one and it are made."""
        target = self.path / key
        make_below(self.path, target.parent)
        write_atomic(target, data, "all" if flush else "nothing")

    def has(self, key: str) -> bool:
        """Whether the file is there (OSError if that is not known: a "no" lets callers delete)."""
        try:
            return stat.S_ISREG((self.path / key).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, prefix: str = "") -> list[str]:
        """Files below the folder; unfinished ones are none."""
        return [key for key in self._files(prefix) if target_of_leftover(key.rpartition("/")[2]) is None]

    def top(self) -> list[str]:
        """What lies right in the folder."""
        return [entry.name for entry in self.path.iterdir()]

    def delete(self, key: str) -> None:
        """Remove a file."""
        with suppress(FileNotFoundError, NotADirectoryError):
            (self.path / key).unlink()

    def stamp(self, key: str) -> str:
        """Time and inode of the file."""
        now = (self.path / key).stat()
        return f"{now.st_mtime_ns} {now.st_ino}"

    def local(self, key: str) -> Path:
        """The file itself."""
        return self.path / key

    def chunks(self) -> ChunkFiles:
        """Chunks as files."""
        from wsigen.storage.zarr_stores import ChunkFiles

        return ChunkFiles(self.path)

    def make(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove files that are being written, or were when their writer was killed."""
        for key in self._files(""):
            if target_of_leftover(key.rpartition("/")[2]):
                self.delete(key)

    def discard(self, name: str) -> None:
        """Remove a file or a folder; a folder loses its name first, by which late writers would find it."""
        path = self.path / name
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            remove_leftovers(path)

    def leave(self) -> None:
        """Remove the folder, unless something lies in it."""
        with suppress(OSError):
            self.path.rmdir()

    def links(self) -> list[str]:
        """Names of what is neither a file nor a folder."""
        found: list[str] = []
        folders = [self.path]
        while folders:
            with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:  # late workers may still delete
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        found.append(str(Path(entry.path).relative_to(self.path)))
        return sorted(found)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Names and bytes of all files."""
        for key in self._files(""):
            with suppress(FileNotFoundError):  # a late worker may still write and rename there
                yield key, (self.path / key).stat().st_size

    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.sizes())

    @contextmanager
    def lock(self, key: str) -> Iterator[Lock]:
        """Hold the folder; the operating system releases it with the process, however that ends.

        Raises
        ------
        RunError
            If another driver holds it (the message says who), or the file cannot be locked.
        """
        path = self.path / key
        try:
            file = open_lock(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be opened ({error.strerror}); the run's directory must be writable") from None
        with file:
            try:
                lock_file(file)
            except BlockingIOError:
                holder = file.read(200).decode(errors="replace").strip() or "another process"
                raise RunError(f"{self.path}: held by another driver ({holder}); wait for it or stop it") from None
            except OSError as error:
                advice = "this file system cannot lock files"
                raise RunError(f"{path}: {advice} ({error.strerror}); choose another --run-dir") from None
            file.truncate(0)
            file.write(holder_name())
            yield Lock()

    def _files(self, prefix: str) -> list[str]:
        """All files below a folder in which others may write and delete."""
        walk = os.walk(self.path / prefix)
        return [str((Path(folder) / name).relative_to(self.path)) for folder, _, names in walk for name in names]
