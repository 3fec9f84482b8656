"""`Spool`: encoded blocks in a folder, until all are there and the slide can be put together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from wsigen.base.errors import DamagedChunkError
from wsigen.slide.tiles import EncodedBlock, read_block
from wsigen.storage.folder import Folder
from wsigen.storage.local import LocalFolder

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Spool:
    """A folder with one value per block, shared by any number of writers.

    Values appear whole or not at all. A block's bytes depend on its pixels only, so a worker that was thought
    dead and writes late replaces a value by an equal one; if the run is over and its folder gone, it fails.

    Parameters
    ----------
    folder : Folder or Path
        Of a run, or the path of a folder, which is then made.
    """

    def __init__(self, folder: Folder | Path) -> None:
        if isinstance(folder, Path):
            folder = LocalFolder(folder)
            folder.make()
        self._folder: Folder = folder

    def make(self) -> None:
        """Make the folder; writers never do."""
        self._folder.make()

    def write(self, ij: tuple[int, int], blob: Buffer) -> None:
        """Store the blob of block ``ij``.

        It is not flushed: its checksum tells what a power cut took, and what it was made from is kept until the slide is there.
        """
        self._folder.write(self.key(ij), blob, flush=False)

    def has(self, ij: tuple[int, int]) -> bool:
        """Whether block ``ij`` is there (it may still turn out to be damaged)."""
        return self._folder.has(self.key(ij))

    def done(self) -> set[tuple[int, int]]:
        """Every block that is there."""
        return {ij for key in self._folder.names() if (ij := self.place_of(key)) is not None}

    def read(self, ij: tuple[int, int]) -> EncodedBlock:
        """Read block ``ij``.

        Raises
        ------
        DamagedChunkError
            If it is missing, truncated, altered, or another block.
        """
        name = self.key(ij)
        try:
            blob = self._folder.read(name)
        except FileNotFoundError:
            raise DamagedChunkError(f"block {name}: missing from {self._folder.name}", name) from None
        block = read_block(blob, name)
        if block.ij != ij:
            raise DamagedChunkError(f"block {name}: holds block {block.ij}, expected {ij}", name)
        return block

    def discard(self, ij: tuple[int, int]) -> None:
        """Remove block ``ij``, so that it will be made again."""
        self._folder.delete(self.key(ij))

    def discard_damaged(self) -> None:
        """Read every block, and remove those that are damaged."""
        for ij in sorted(self.done()):
            try:
                self.read(ij)
            except DamagedChunkError:
                self.discard(ij)

    def sweep(self) -> None:
        """Remove what killed writers left; blocks that are being written now are made again."""
        self._folder.sweep()

    @staticmethod
    def key(ij: tuple[int, int]) -> str:
        """Name of a block, also in messages and in `DamagedChunkError.key`."""
        return f"{ij[0]:05d}_{ij[1]:05d}.blk"

    @staticmethod
    def place_of(key: str) -> tuple[int, int] | None:
        """The block that has this name; None for any other name."""
        match = re.fullmatch(r"(\d+)_(\d+)\.blk", key)
        return (int(match[1]), int(match[2])) if match else None
