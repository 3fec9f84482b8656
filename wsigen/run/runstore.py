"""The zarr group of a run: its passes made, opened, and their metadata kept whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from wsigen.base.errors import RunError
from wsigen.base.geometry import ChunkGrid, tile_side
from wsigen.run.store import NO_CLASS, PassState
from wsigen.storage.folder import Folder


class RunStore:
    """The zarr group of a run.

    Parameters
    ----------
    folder:
        Of the group, e.g. ``RUN/work-0123456789ab/state.zarr``.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def create_pass(self, index: int, grid: ChunkGrid, channels: int, steps: int, side: int, history: bool) -> PassState:
        """Make the arrays of a pass, with a history if its sampler needs one; an unfinished attempt is replaced."""
        self._folder.make()
        group = _make_arrays(self._folder.chunks(), index, grid, channels, steps, side, history)
        return PassState(group, grid, self._folder.sub(f"pass-{index}"))

    def restore_metadata(self, index: int, grid: ChunkGrid, channels: int, steps: int, side: int, history: bool) -> None:
        """Write the metadata of a pass's arrays again where it is not what ``create_pass`` wrote: it was damaged."""
        wanted: dict[str, Any] = {}
        _make_arrays(MemoryStore(wanted), index, grid, channels, steps, side, history)
        for key, value in wanted.items():
            content = value.to_bytes()
            if not self._folder.has(key) or self._folder.read(key) != content:
                self._folder.write(key, content)

    def open_pass(self, index: int, grid: ChunkGrid) -> PassState:
        """Open the arrays of a pass.

        Raises
        ------
        RunError
            If they are not there.
        """
        try:
            group = zarr.open_group(self._folder.chunks(), mode="r+")[f"pass-{index}"]
            return PassState(group, grid, self._folder.sub(f"pass-{index}"))
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise RunError(f"{self._folder.name}: pass {index} is missing or unreadable ({error}); resume the run") from None

    def has_pass(self, index: int) -> bool:
        """Whether a pass was prepared to the end."""
        return self._folder.has(f"pass-{index}/activity/c/0/0")


def _make_arrays(store: Any, index: int, grid: ChunkGrid, channels: int, steps: int, side: int, history: bool) -> Any:
    """Make the group of a pass and its arrays (see ``wsigen.run.store``)."""
    group = zarr.open_group(store, mode="a").create_group(f"pass-{index}", overwrite=True)
    c, reach = grid.chunk, grid.chunk + side
    height, width = (
        grid.rows * c,
        grid.columns * c,
    )  # whole chunks: a key is always written in full
    live = {
        "dtype": "float32",
        "fill_value": np.nan,
        "compressors": [Crc32cCodec()],
        "config": {"write_empty_chunks": True},
    }
    group.create_array("latents", shape=(steps + 1, channels, height, width), **_tiled((1, channels), c), **live)
    if history:
        group.create_array("history", shape=(steps, channels, height, width), **_tiled((1, channels), c), **live)
    partial_shape = (steps, grid.rows, grid.columns, channels, reach, reach)
    group.create_array("partials", shape=partial_shape, **_tiled((1, 1, 1, channels), reach), **live)
    group.create_array(
        "classes",
        shape=(grid.height, grid.width),
        chunks=(c, c),
        dtype="uint8",
        fill_value=NO_CLASS,
        compressors=[BloscCodec(cname="zstd", clevel=3), Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    return group


def _tiled(before: tuple[int, ...], side: int) -> dict[str, Any]:
    """Chunks of ``[*before, side, side]``, in tiles."""
    tile = tile_side(side)
    whole, part = (*before, side, side), (*before, tile, tile)
    return {"chunks": whole} if tile == side else {"chunks": part, "shards": whole}
