"""zarr's store of local files, for writers that are killed, lose power, or come back when the run is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from wsigen.storage.files import make_below, write_atomic

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer


class ChunkFiles(LocalStore):
    """Chunks as files that are whole or not there, also after a power cut.

    A chunk's bytes are flushed to disk before it gets its name: keys are deleted when what was made from them exists, and
    that must not rest in memory alone. The store's own folder is never made here: a worker that was thought dead and writes
    after the run was cleared finds no folder, fails, and leaves nothing behind.
    """

    async def _open(self, *, mode: Any = None) -> None:
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: there is no store (any more)")
        await Store._open(self)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a chunk."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a chunk, from ordinary code."""
        self._check_writable()
        path = self.root / key
        make_below(self.root, path.parent)
        write_atomic(path, value.as_buffer_like(), flush="contents")
