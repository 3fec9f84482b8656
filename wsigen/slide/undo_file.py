"""What a change of a file wrote over, kept beside it, so that the file before can be had again, byte for byte.

A ZIP archive, not compressed: ``old-bytes``, one piece after the other, and ``undo.json`` with their places and the size and
SHA-256 of the file before.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from wsigen.base.errors import OutputError, refusing
from wsigen.storage.files import atomic_path, copy_file, sha256

_TABLE, _BYTES = "undo.json", "old-bytes"
_MOST_TABLE = 2**28
_PIECE = 2**20


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
    """
    if path is None:
        yield UndoWriter(None)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_BYTES, "w", force_zip64=True) as stream:
            writer = UndoWriter(stream)
            yield writer
        table = {"size": size, "sha256": parent_sha256, "pieces": writer.pieces}
        archive.writestr(_TABLE, json.dumps(table, separators=(",", ":")))


def restore(output: str | os.PathLike[str], undo: str | os.PathLike[str]) -> str:
    """Put the file before in the place of ``output``; return its SHA-256.

    Raises
    ------
    OutputError
        If ``undo`` belongs to another file, or is damaged. ``output`` is then as it was.
    """
    output, undo = Path(output), Path(undo)
    advice = "keep the slide as it is, or take its parent from a backup"
    with (
        refusing(OutputError, f"{undo}: cannot undo {output.name}", advice),
        zipfile.ZipFile(undo) as archive,
        archive.open(_BYTES) as old,
        atomic_path(output) as beside,
    ):
        size, parent, pieces = _table(archive)
        if output.stat().st_size < size:
            raise ValueError("it belongs to another file")
        copy_file(output, beside)
        with beside.open("r+b") as file:
            _put_back(file, old, size, pieces)
        if sha256(beside) != parent:
            raise ValueError("it belongs to another file, or the file was changed since")
    return parent


def _table(archive: zipfile.ZipFile) -> tuple[int, str, list[tuple[int, int]]]:
    """Size and SHA-256 of the file before, and the places of the pieces; a stranger may have written them."""
    if archive.getinfo(_TABLE).file_size > _MOST_TABLE:
        raise ValueError("a table of too many pieces")
    table = json.loads(archive.read(_TABLE))
    size, parent = table["size"], table["sha256"]
    pieces = [(at, length) for at, length in table["pieces"]]
    if not all(isinstance(n, int) and n >= 0 for piece in [(size, 0), *pieces] for n in piece) or not isinstance(parent, str):
        raise ValueError("a table that is none")
    if any(at + length > size for at, length in pieces):
        raise ValueError("a piece beyond the end of the file")
    return size, parent, pieces


def _put_back(file: IO[bytes], old: IO[bytes], size: int, pieces: list[tuple[int, int]]) -> None:
    """Write the pieces over what was written over them, the last first."""
    first = [0]
    for _, length in pieces:
        first.append(first[-1] + length)
    for start, (at, length) in reversed(list(zip(first, pieces, strict=False))):
        old.seek(start)
        file.seek(at)
        for done in range(0, length, _PIECE):
            data = old.read(min(_PIECE, length - done))
            if not data:
                raise ValueError("it ends early")
            file.write(data)
    file.truncate(size)
