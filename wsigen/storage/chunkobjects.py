"""zarr's store of objects, for writers that come back when the run is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarr.storage import FsspecStore

from wsigen.storage.objects import OPTIONS

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype


class ChunkObjects(FsspecStore):
    """Chunks as objects; errors of the client library are ``OSError``.

    Attributes
    ----------
    guard:
        An object without which no chunk is written: the run's manifest. (A worker that was thought dead and writes after the
        run was cleared would otherwise leave an object that nobody removes.)
    """

    guard: str | None = None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: object = None) -> Buffer | None:
        """Read a chunk."""
        try:
            return await super().get(key, prototype, byte_range)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self}/{key}: {type(error).__name__}: {error}") from error

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a chunk."""
        try:
            if self.guard is not None and not await self.fs._exists(self.guard):
                raise FileNotFoundError(f"{self}: there is no run (any more)")
            await super().set(key, value, byte_range)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self}/{key}: {type(error).__name__}: {error}") from error


def open_chunks(url: str, guard: str | None) -> ChunkObjects:
    """Open the store at a URL; ``guard`` is a path in its bucket."""
    store: ChunkObjects = ChunkObjects.from_url(url, storage_options=dict(OPTIONS))
    store.guard = guard
    return store
