"""What a change of a file wrote over, kept beside it, so that the file before can be had again, byte for byte.

Layout: magic, the pieces one after the other, a table (JSON) of their places and of the size and SHA-256 of the file before,
and the length of the table (uint64, little-endian).
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
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
def undo_writer(path: Path | None, size: int, parent_sha256: str) -> Iterator[UndoWriter]:
    """Write what is kept to a file, or nowhere.

    Parameters
    ----------
    size : int
        Of the file before, bytes.

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
        table = {"size": size, "sha256": parent_sha256, "pieces": writer.pieces}
        text = json.dumps(table, separators=(",", ":")).encode()
        if len(text) > _MOST_TABLE:
            count = len(writer.pieces)
            raise OutputError(f"{count} changes of a file are too many to be undone; make them in two steps, or keep no undo")
        stream.write(text + _LENGTH.pack(len(text)))


def restore(output: str | os.PathLike[str], undo: str | os.PathLike[str]) -> str:
    """Put the file before in the place of ``output``; return its SHA-256.

    Raises
    ------
    OutputError
        If ``undo`` belongs to another file, or is damaged. ``output`` is then as it was.
    """
    output, undo = Path(output), Path(undo)
    advice = "keep the slide as it is, or take its parent from a backup"
    with refusing(OutputError, f"{undo}: cannot undo {output.name}", advice), undo.open("rb") as old:
        size, parent, pieces = _table(old)
        if output.stat().st_size < size:
            raise ValueError(_OTHER)
        with atomic_path(output) as beside:
            copy_file(output, beside)
            with beside.open("r+b") as file:
                _put_back(file, old, size, pieces)
            if sha256(beside) != parent:
                raise ValueError(_OTHER)
    return parent


def _table(old: IO[bytes]) -> tuple[int, str, list[tuple[int, int]]]:
    """Size and SHA-256 of the file before, and the places of the pieces; a stranger may have written them."""
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
    if not all(type(n) is int and n >= 0 for n in (size, *(n for piece in pieces for n in piece))):
        raise ValueError("a table of something else than numbers")
    if any(at + n > size for at, n in pieces) or sum(n for _, n in pieces) != end - length - len(MAGIC):
        raise ValueError("pieces that do not fit the file")
    return size, str(parent), pieces


def _put_back(file: IO[bytes], old: IO[bytes], size: int, pieces: list[tuple[int, int]]) -> None:
    """Write the pieces over what was written over them, the last one first."""
    start = len(MAGIC) + sum(n for _, n in pieces)
    for at, n in reversed(pieces):
        start -= n
        old.seek(start)
        file.seek(at)
        for done in range(0, n, _PIECE):
            file.write(old.read(min(_PIECE, n - done)))
    file.truncate(size)
