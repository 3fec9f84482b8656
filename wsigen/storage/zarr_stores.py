"""zarr's stores of files and of objects, for writers that are killed, lose power, or come back when the run is over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from wsigen.storage.files import make_below, write_atomic

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype


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


class ChunkObjects(FsspecStore):
    """Chunks as objects; errors of the client library become ``OSError``.

    Attributes
    ----------
    guard : str or None
        Path of an object without which no chunk is written: ``run.json``. (A worker that was thought dead and writes
        after the run was cleared would otherwise leave an object that nobody removes.)
    """

    guard: str | None = None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: object = None) -> Buffer | None:
        """Read a chunk."""
        with _os_errors(f"{self}/{key}"):
            return await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a chunk."""
        with _os_errors(f"{self}/{key}"):
            if self.guard is not None and not await self.fs._exists(self.guard):
                raise FileNotFoundError(f"{self}: there is no run (any more)")
            await super().set(key, value, byte_range)


class Overwriting(WrapperStore[Any]):
    """A store as writers of whole chunks see it: every chunk seems to be missing; metadata are there.

    zarr reads a shard before it writes one, even a whole one: a request more for every write, and where what lies there is
    damaged it could not be replaced.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """Read metadata, and no chunk."""
        return None if "/c/" in key else await super().get(key, prototype, byte_range)


class BoundedBlosc(WrapperStore[Any]):
    """A store of chunks that Blosc packs, which says how large each is before it is unpacked: a few bytes may claim gigabytes.

    Parameters
    ----------
    store : Store
        What it wraps.
    most : int
        Bytes of a chunk, unpacked; a larger one is a ValueError.
    """

    def __init__(self, store: Any, most: int) -> None:
        super().__init__(store)
        self._most = most

    def _with_store(self, store: Any) -> BoundedBlosc:
        return BoundedBlosc(store, self._most)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """Read metadata, or a whole chunk."""
        data = await super().get(key, prototype, byte_range)
        if data is not None and "/c/" in key:
            claimed = int.from_bytes(data[4:8].to_bytes(), "little")  # the header's nbytes (c-blosc, README_CHUNK_FORMAT)
            if claimed > self._most:
                raise ValueError(f"{key}: would unpack to {claimed} bytes, not {self._most}")
        return data


@contextmanager
def _os_errors(where: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{where}: {type(error).__name__}: {error}") from error
