"""The zarr arrays of a pass, as ``create_pass`` makes them and every opening demands them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from wsigen.base.geometry import ChunkGrid, tile_side

NO_CLASS = 254
"""What a class map reads where its chunk is missing; no class has this index."""

NO_START = 2**16 - 3
"""The same of the steps from which pixels are denoised; no run has so many."""

MOST_VALUES = 2**22
"""Of an array that is written once: a decoder's statistics are some hundreds, a pass has no more chunks."""


@dataclass(frozen=True, slots=True)
class PassArrays:
    """What decides the arrays of a pass.

    Attributes
    ----------
    index : int
        Of the pass.
    grid : ChunkGrid
        Chunks of the canvas.
    channels, steps, side : int
        Of the latents, of the pass, and of a crop, latent px.
    history : bool
        Whether its sampler has a memory.
    known : bool
        Whether pixels of a slide are known.
    """

    index: int
    grid: ChunkGrid
    channels: int
    steps: int
    side: int
    history: bool
    known: bool = False

    def most_bytes(self, array: str) -> int:
        """How large a key of an array can be at most, with checksums and the index of a shard."""
        if array in ("activity", "norm"):
            return 8 * MOST_VALUES
        side = self.grid.chunk + (self.side if array == "partials" else 0)
        values = {"classes": 1, "starts": 2}.get(array, 4 * self.channels) * side**2
        return values + values // 8 + 2**16


def make_arrays(store: Any, arrays: PassArrays) -> Any:
    """Make the group of a pass and its arrays (see the top of `wsigen.run.store`)."""
    grid, channels, steps = arrays.grid, arrays.channels, arrays.steps
    group = zarr.open_group(store, mode="a").create_group(f"pass-{arrays.index}", overwrite=True)
    c, reach = grid.chunk, grid.chunk + arrays.side
    height, width = grid.rows * c, grid.columns * c  # whole chunks: a key is always written in full
    live = {
        "dtype": "float32",
        "fill_value": np.nan,
        "compressors": [Crc32cCodec()],
        "config": {"write_empty_chunks": True},
    }
    group.create_array("latents", shape=(steps + 1, channels, height, width), **_tiled((1, channels), c), **live)
    if arrays.history:
        group.create_array("history", shape=(steps, channels, height, width), **_tiled((1, channels), c), **live)
    partial_shape = (steps, grid.rows, grid.columns, channels, reach, reach)
    group.create_array("partials", shape=partial_shape, **_tiled((1, 1, 1, channels), reach), **live)
    packed: dict[str, Any] = {
        "shape": (grid.height, grid.width),
        "chunks": (c, c),
        "compressors": [BloscCodec(cname="zstd", clevel=3), Crc32cCodec()],
        "config": {"write_empty_chunks": True},
    }
    group.create_array("classes", dtype="uint8", fill_value=NO_CLASS, **packed)
    if arrays.known:
        group.create_array("known", shape=(1, channels, height, width), **_tiled((1, channels), c), **live)
        group.create_array("starts", dtype="uint16", fill_value=NO_START, **packed)
    return group


def _tiled(before: tuple[int, ...], side: int) -> dict[str, Any]:
    """Chunks of ``(*before, side, side)``, in tiles."""
    tile = tile_side(side)
    whole, tiles = (*before, side, side), (*before, tile, tile)
    return {"chunks": whole} if tile == side else {"chunks": tiles, "shards": whole}
