"""What a change of a file wrote over, kept beside it, so that the file before can be had again, byte for byte.

Layout: magic, the pieces one after the other, whole files that lay beside, a table (JSON) of the pieces' places, of the size
and SHA-256 of the file before, and of name, size and SHA-256 of the files beside, and the length of the table (uint64,
little-endian).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wsigen.base.errors import OutputError, refusing
from wsigen.storage.files import atomic_path, copy_file, sha256

MAGIC = b"wsigen undo 1\n"

_LENGTH = struct.Struct("<Q")
_MOST_TABLE = 2**25  # of a stranger's, this takes 1 GB to parse
_PIECE = 2**20
_OTHER = "it belongs to another file, or the file was changed since"


class UndoWriter:
    """Pieces of a file, kept in the order in which they are written over."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream = stream
        self.pieces: list[tuple[int, int]] = []

    def keep(self, at: int, data: bytes) -> None:
        """Keep what lies at a place of the file."""
        if self._stream is not None:
            self._stream.write(data)
            self.pieces.append((at, len(data)))


@contextlib.contextmanager
def undo_writer(
    path: Path | None, size: int, parent_sha256: str, beside: Mapping[str, Path] | None = None
) -> Iterator[UndoWriter]:
    """Write what is kept to a file, or nowhere.

    Parameters
    ----------
    size : int
        Of the file before, bytes.
    beside : mapping of str to path
        Files that are to be had again with it, by a name for each.

    Raises
    ------
    OutputError
        If there are so many pieces that `restore` would refuse them: about a million.
    """
    if path is None:
        yield UndoWriter(None)
        return
    with path.open("xb") as stream:
        stream.write(MAGIC)
        writer = UndoWriter(stream)
        yield writer
        files = [(name, *_append(stream, file)) for name, file in (beside or {}).items()]
        table = {"size": size, "sha256": parent_sha256, "pieces": writer.pieces, "beside": files}
        text = json.dumps(table, separators=(",", ":")).encode()
        if len(text) > _MOST_TABLE:
            count = len(writer.pieces)
            raise OutputError(f"{count} changes of a file are too many to be undone; make them in two steps, or keep no undo")
        stream.write(text + _LENGTH.pack(len(text)))


def _append(stream: IO[bytes], path: Path) -> tuple[int, str]:
    """Put a file at the end of another one; its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            stream.write(data)
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Table:
    """What a file that undoes something holds: see above."""

    size: int
    sha256: str
    pieces: list[tuple[int, int]]
    beside: list[tuple[str, int, str]]


def restore(output: str | os.PathLike[str], undo: str | os.PathLike[str], beside: Mapping[str, Path] | None = None) -> str:
    """Put the file before in the place of ``output``; return its SHA-256.

    Parameters
    ----------
    beside : mapping of str to path
        Where the files that lay beside it come, by their names (`undo_writer`); one that was not there is removed. Others stay
        in ``undo``.

    Raises
    ------
    OutputError
        If ``undo`` belongs to another file, or is damaged: all is then as it was. If files cannot be renamed: ``output`` gets
        its place first, so it may be the file before already while those beside it are not; ``undo`` stays.
    """
    output, undo = Path(output), Path(undo)
    advice = "keep the slide as it is, or take its parent from a backup"
    with refusing(OutputError, f"{undo}: cannot undo {output.name}", advice), undo.open("rb") as old:
        table = _table(old)
        if output.stat().st_size < table.size:
            raise ValueError(_OTHER)
        with contextlib.ExitStack() as files:  # all of them get their places at its end, the slide first
            _restore_beside(old, table, beside or {}, files)
            scratch = files.enter_context(atomic_path(output))
            copy_file(output, scratch)
            with scratch.open("r+b") as file:
                _put_back(file, old, table)
            if sha256(scratch) != table.sha256:
                raise ValueError(_OTHER)
        kept = {name for name, *_ in table.beside}
        for name, path in (beside or {}).items():
            if name not in kept:
                path.unlink(missing_ok=True)
    return table.sha256


def _restore_beside(old: IO[bytes], table: _Table, beside: Mapping[str, Path], files: contextlib.ExitStack) -> None:
    old.seek(len(MAGIC) + sum(n for _, n in table.pieces))
    for name, size, digest in table.beside:
        if name not in beside:
            old.seek(size, os.SEEK_CUR)
            continue
        scratch, found = files.enter_context(atomic_path(beside[name])), hashlib.sha256()
        with scratch.open("xb") as file:
            for done in range(0, size, _PIECE):
                data = old.read(min(_PIECE, size - done))
                found.update(data)
                file.write(data)
        if found.hexdigest() != digest:
            raise ValueError("truncated or damaged")


def _table(old: IO[bytes]) -> _Table:
    """What it holds; a stranger may have written it."""
    end = old.seek(0, os.SEEK_END) - _LENGTH.size
    old.seek(0)
    if end < len(MAGIC) or old.read(len(MAGIC)) != MAGIC:
        raise ValueError("no file that undoes something")
    old.seek(end)
    (length,) = _LENGTH.unpack(old.read())
    if length > min(_MOST_TABLE, end - len(MAGIC)):
        raise ValueError("truncated or damaged")
    old.seek(end - length)
    table = json.loads(old.read(length))
    size, parent = table["size"], table["sha256"]
    pieces = [(at, n) for at, n in table["pieces"]]
    beside = [(str(name), n, str(digest)) for name, n, digest in table.get("beside", ())]
    lengths = [n for _, n in pieces] + [n for _, n, _ in beside]
    if not all(type(n) is int and n >= 0 for n in (size, *(at for at, _ in pieces), *lengths)):
        raise ValueError("a table of something else than numbers")
    if any(at + n > size for at, n in pieces) or sum(lengths) != end - length - len(MAGIC):
        raise ValueError("pieces that do not fit the file")
    return _Table(size, str(parent), pieces, beside)


def _put_back(file: IO[bytes], old: IO[bytes], table: _Table) -> None:
    """Write the pieces over what was written over them, the last one first."""
    start = len(MAGIC) + sum(n for _, n in table.pieces)
    for at, n in reversed(table.pieces):
        start -= n
        old.seek(start)
        file.seek(at)
        for done in range(0, n, _PIECE):
            file.write(old.read(min(_PIECE, n - done)))
    file.truncate(table.size)
