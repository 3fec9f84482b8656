"""Files that are either whole or not there: write beside, flush unless the caller says otherwise, rename; and checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from wsigen.base.errors import OutputError, WsigenError, refusing
from wsigen.base.machine import demand_posix

if TYPE_CHECKING:
    from typing_extensions import Buffer

Flush = Literal["all", "contents", "nothing"]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], flush: Flush = "all") -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there becomes ``path``, or nothing does.

    The caller creates the temporary file. On success it is renamed onto ``path`` in one
    step; on failure it is deleted and whatever lay at ``path`` before is untouched. Every call has its own
    temporary name, so two writers of the same file do not disturb each other: the last rename wins.

    Parameters
    ----------
    flush : Flush
        What must outlive a power cut from now on: ``all``; ``contents``, but perhaps not the rename (a file system may forget
        the newest ones, but in their order: what was deleted later is there, too); or ``nothing``: for files whose contents
        tell that they are damaged, and which can be made again.
    """
    target = Path(path)
    beside = _beside(target)
    try:
        yield beside
        if flush != "nothing":
            _flush(beside, os.O_RDWR)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    if flush == "all" and os.name == "posix":  # the rename itself is only durable once the folder is
        _flush(target.parent, os.O_RDONLY)


def write_atomic(path: str | os.PathLike[str], data: Buffer, flush: Flush = "all") -> None:
    """Write ``data`` to ``path`` so that no reader and no crash ever sees half of it."""
    with atomic_path(path, flush) as beside:
        beside.write_bytes(data)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file's bytes within the kernel, without taking room for them where the file system can share blocks."""
    with Path(source).open("rb") as here, Path(target).open("xb") as there:
        left = os.fstat(here.fileno()).st_size
        try:
            while left > 0 and (done := os.copy_file_range(here.fileno(), there.fileno(), left)):
                left -= done
        except (AttributeError, OSError) as error:  # another system, or file systems that cannot
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            here.seek(0)
            there.seek(0)
            shutil.copyfileobj(here, there, 2**20)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside ``folder``; once it is written it takes the place of what was there, or nothing does (OSError)."""
    beside, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        _let_umask_say(beside)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _let_umask_say(folder: Path) -> None:
    """Let whoever may read a new folder read the files in it: safetensors writes them for their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def move_all(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename flushed files into one folder, one after the other, and flush it."""
    for source, target in zip(sources, targets, strict=True):
        source.replace(target)
    _flush(targets[0].parent, os.O_RDONLY)


def target_of_leftover(name: str) -> str | None:
    """The name of the file whose writer, killed half-way, left a file of this name; None for any other name."""
    match = re.fullmatch(r"\.[0-9a-f]{12}\.(.+)", name)
    return match[1] if match else None


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of ``path`` left beside it; nobody may be writing it now."""
    target = Path(path)
    for other in target.parent.iterdir():
        if target_of_leftover(other.name) == target.name:
            if other.is_dir() and not other.is_symlink():
                shutil.rmtree(other)
            else:
                other.unlink(missing_ok=True)


def make_below(root: Path, folder: Path) -> None:
    """Make a folder and those between it and ``root``, but not the root itself (FileNotFoundError if it is not there)."""
    if folder == root:
        return
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        if folder.parent == root:
            raise
        make_below(root, folder.parent)
        folder.mkdir(exist_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder that others may still write into: it loses its name first, by which they would find it."""
    aside = _beside(folder)
    try:
        folder.replace(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside)


def open_lock(path: Path) -> IO[bytes]:
    """Open a file to be locked and written over, unbuffered; it is made if it is not there.

    Raises
    ------
    OSError
        If it cannot be opened, or what lies there has another name too (a symbolic or hard link, under which somebody may have
        laid a file of ours that would be emptied) or is no file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, "a link or special file", str(path))
    return file


def lock_file(file: IO[Any]) -> None:
    """Lock an open file for this process, at once (BlockingIOError if another process holds it).

    The operating system releases the lock with the process, however that ends.
    """
    demand_posix()
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def held(place: Path, busy: Callable[[str], WsigenError], cure: str, must: bool = False) -> Iterator[None]:
    """Keep a lock file for this process and remove it at the end: two would replace each other's files.

    Parameters
    ----------
    place : Path
        The lock file.
    busy : callable
        Makes the error of whoever holds it.
    cure : str
        What to do if it cannot be made.
    must : bool
        Refuse a file system that locks no files. Otherwise the last to write wins there.

    Raises
    ------
    WsigenError
        That of ``busy`` if another process holds it.
    OutputError
        If it cannot be made.
    """
    with refusing(OutputError, f"{place}: cannot be locked", cure):
        file = _locked(place, busy, must)
    with file:
        try:
            with contextlib.suppress(OSError):  # the name is for people; a full disk holds the lock as well
                file.truncate(0)
                file.write(holder_name())
            yield
        finally:
            place.unlink(missing_ok=True)


def holder_name() -> bytes:
    """What a lock file says of the process that holds it."""
    return f"process {os.getpid()} on {socket.gethostname()}".encode()


def _locked(place: Path, busy: Callable[[str], WsigenError], must: bool) -> IO[bytes]:
    """Open and lock a file that its last holder may remove at any moment."""
    while True:
        file = open_lock(place)
        try:
            lock_file(file)
        except BlockingIOError:
            holder = file.read(200).decode(errors="replace") or "another process"
            file.close()
            raise busy(holder) from None
        except OSError:  # a file system that locks no files
            if must:
                file.close()
                raise
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), place.lstat()):
                return file
        file.close()


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(files: Mapping[str, Path]) -> str:
    """Return the SHA-256 (hex) over the names of some files, sorted, and their contents."""
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        total.update(name.encode() + b"\0" + bytes.fromhex(sha256(path)))
    return total.hexdigest()


def sha256_of_input(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of the files in a folder: a DICOM slide is one."""
    if path.is_dir():
        return sha256_of({file.name: file for file in path.iterdir() if file.is_file()})
    return sha256(path)


def _beside(path: Path) -> Path:
    """A name of its own for what will become, or was, ``path``; ``target_of_leftover`` knows it again."""
    return path.with_name(leftover_name(path.name))


def leftover_name(name: str) -> str:
    """A new name for what stands beside ``name`` for a moment."""
    return f".{uuid.uuid4().hex[:12]}.{name}"


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
