"""`Spool`: encoded blocks in a folder, until all are there and the slide can be put together."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wsigen.errors import DamagedChunkError
from wsigen.files import target_of_leftover, write_atomic
from wsigen.slide.tiles import EncodedBlock, read_block

_NAME = re.compile(r"(\d+)_(\d+)\.blk")


class Spool:
    """A folder with one file per block, shared by any number of writers.

    Files appear whole or not at all. A block's bytes depend on its pixels only, so a worker that was thought
    dead and writes late replaces a file by an equal one; if the run is over and the folder gone, it fails.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    def write(self, ij: tuple[int, int], blob: bytes) -> None:
        """Store the blob of block ``ij``; the folder must be there (FileNotFoundError)."""
        write_atomic(self._path(ij), blob)

    def has(self, ij: tuple[int, int]) -> bool:
        """Whether block ``ij`` is there (it may still turn out to be damaged)."""
        return self._path(ij).is_file()

    def done(self) -> set[tuple[int, int]]:
        """Every block that is there."""
        if not self.directory.is_dir():
            return set()
        names = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return {(int(m[1]), int(m[2])) for m in names if m}

    def read(self, ij: tuple[int, int]) -> EncodedBlock:
        """Read block ``ij``.

        Raises
        ------
        DamagedChunkError
            If it is missing, truncated, altered, or another block.
        """
        path = self._path(ij)
        try:
            blob = path.read_bytes()
        except FileNotFoundError:
            raise DamagedChunkError(f"block {path.name}: missing from {self.directory}", path.name) from None
        block = read_block(blob, path.name)
        if block.ij != ij:
            raise DamagedChunkError(f"block {path.name}: holds block {block.ij}, expected {ij}", path.name)
        return block

    def discard(self, ij: tuple[int, int]) -> None:
        """Remove block ``ij``, so that it will be made again."""
        self._path(ij).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed writers left; nobody may be writing now, or their blocks are made again."""
        for entry in list(self.directory.iterdir()):
            if target_of_leftover(entry.name):
                entry.unlink(missing_ok=True)

    def _path(self, ij: tuple[int, int]) -> Path:
        return self.directory / self.key(ij)

    @staticmethod
    def key(ij: tuple[int, int]) -> str:
        """Name of a block's file, by which damage is told."""
        return f"{ij[0]:05d}_{ij[1]:05d}.blk"
