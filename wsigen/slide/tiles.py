"""A block of pixels to its encoded tiles, packed into one self-describing blob of bytes, and back.

Layout of a blob: magic, payload, table (JSON), length of the table and CRC-32 of all before it (uint32, little-endian).
The table says which block of which slide this is, and where in the payload each tile lies. Tiles may share bytes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsigen.base.errors import DamagedChunkError
from wsigen.slide.codec import RGB, area_means, encode_tile, is_plain
from wsigen.slide.pyramid import PyramidSpec

MAGIC = b"wsiblk2\n"
_CURE = "delete it and it will be made again"
_NUMBER = struct.Struct("<I")

TileKey = tuple[int, int, int]
"""``(level, row, column)``; row and column count the tiles of the whole level."""


@dataclass(frozen=True)
class EncodedBlock:
    """One block, encoded.

    Attributes
    ----------
    ij:
        The block's position in ``PyramidSpec.grid``.
    spec:
        The fields of the `PyramidSpec` the block was encoded for.
    tiles:
        Tile bytes by ``(level, row, column)``.
    remainder:
        uint8 ``[ceil(h / 8), ceil(w / 8), 3]``: the block's part of level 3.
    """

    ij: tuple[int, int]
    spec: dict[str, Any]
    tiles: Mapping[TileKey, bytes]
    remainder: RGB


def encode_block(spec: PyramidSpec, ij: tuple[int, int], rgb: RGB) -> bytearray:
    """Encode block ``ij``: its tiles of levels 0 to 2 and its remainder image at 1/8, all area means.

    A block of one colour (glass) is encoded as one tile which all others refer to.

    Parameters
    ----------
    rgb:
        uint8 ``[h, w, 3]``, the pixels of ``spec.grid.box(ij)``: cut at the slide's edge.

    Raises
    ------
    ValueError
        If the shape or the type of ``rgb`` is another one.
    """
    expected = (*spec.grid.box(ij).shape, 3)
    if rgb.shape != expected or rgb.dtype != np.uint8:
        raise ValueError(f"block {ij}: expected uint8 {expected}, got {rgb.dtype} {rgb.shape}")
    payload = _Payload()
    images = [rgb, *area_means(rgb)]
    plain = is_plain(rgb)
    glass = payload.add(encode_tile(spec, rgb[: spec.tile, : spec.tile])) if plain else None
    tiles: list[tuple[int, ...]] = []
    for level in range(spec.block_levels):
        corner = spec.block_box(ij, level)
        for row, column in spec.tiles_of_block(ij, level):
            box = spec.level_grid(level).box((row, column)).relative_to(corner)
            place = glass or payload.add(encode_tile(spec, images[level][box.slices]))
            tiles.append((level, row, column, *place))
    remainder = images[-1]
    table = {
        "ij": list(ij),
        "spec": asdict(spec),
        "tiles": tiles,
        # Tissue is stored as it is: it shrinks by a third, which took longer than all else but the tiles.
        "remainder": [*remainder.shape, *payload.add(zlib.compress(remainder.tobytes(), 1 if plain else 0))],
    }
    return payload.sealed(table)


def read_block(blob: bytes | bytearray, key: str = "") -> EncodedBlock:
    """Unpack a blob written by `encode_block`.

    Raises
    ------
    DamagedChunkError
        If the blob is no block, is truncated or was altered; ``key`` names it in the message.
    """
    name = f"block {key}" if key else "block"
    if len(blob) < len(MAGIC) + 2 * _NUMBER.size or blob[: len(MAGIC)] != MAGIC:
        raise DamagedChunkError(f"{name}: {len(blob)} bytes that are no encoded block; {_CURE}", key)
    data = memoryview(blob)
    end = len(blob) - 2 * _NUMBER.size
    stored, found = _NUMBER.unpack(data[end + _NUMBER.size :])[0], _checksum(data[: end + _NUMBER.size])
    if stored != found:
        problem = f"CRC-32 is {found:08x}, expected {stored:08x}: truncated or altered"
        raise DamagedChunkError(f"{name}: {problem}; {_CURE}", key)
    table = json.loads(bytes(data[end - _NUMBER.unpack_from(blob, end)[0] : end]))
    tiles = {(k, r, c): bytes(data[at : at + size]) for k, r, c, at, size in table["tiles"]}
    *shape, at, size = table["remainder"]
    pixels = zlib.decompress(data[at : at + size])
    i, j = table["ij"]
    return EncodedBlock((i, j), table["spec"], tiles, np.frombuffer(pixels, np.uint8).reshape(shape))


class _Payload:
    """A blob that grows; `add` says where a piece lies in it."""

    def __init__(self) -> None:
        self._blob = bytearray(MAGIC)

    def add(self, piece: bytes) -> tuple[int, int]:
        at = len(self._blob)
        self._blob += piece
        return (at, len(piece))

    def sealed(self, table: dict[str, Any]) -> bytearray:
        """The whole blob, with its table and its checksum."""
        text = json.dumps(table, separators=(",", ":")).encode()
        self._blob += text + _NUMBER.pack(len(text))
        self._blob += _NUMBER.pack(_checksum(self._blob))
        return self._blob


def _checksum(data: Any) -> int:
    """CRC-32 of a buffer as zlib has it, by libdeflate, which is sixteen times as fast."""
    import imagecodecs

    return int(imagecodecs.deflate_crc32(data))
