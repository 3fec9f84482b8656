"""A block of pixels to its encoded tiles, packed into one self-describing blob of bytes, and back.

Layout of a blob: magic, length of the header (uint32, little-endian), header (JSON), payload, CRC-32 of all
before it. The header says which block of which slide this is, and where in the payload each tile lies. Tiles
may share bytes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsigen.errors import DamagedChunkError
from wsigen.slide.codec import RGB, area_means, encode_tile, is_plain
from wsigen.slide.pyramid import REMAINDER, PyramidSpec

MAGIC = b"wsiblk1\n"
_CURE = "delete it and it will be made again"
_LENGTH = struct.Struct("<I")

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


def encode_block(spec: PyramidSpec, ij: tuple[int, int], rgb: RGB) -> bytes:
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
    images = [rgb, *area_means(rgb, (2, 4, REMAINDER))]
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
    header = {
        "ij": list(ij),
        "spec": asdict(spec),
        "tiles": tiles,
        # Tissue is stored as it is: it shrinks by a third, which took longer than all else but the tiles.
        "remainder": [*remainder.shape, *payload.add(zlib.compress(remainder.tobytes(), 1 if plain else 0))],
    }
    return _pack(header, payload.data)


def read_block(blob: bytes, key: str = "") -> EncodedBlock:
    """Unpack a blob written by `encode_block`.

    Raises
    ------
    DamagedChunkError
        If the blob is no block, is truncated or was altered; ``key`` names it in the message.
    """
    name = f"block {key}" if key else "block"
    start = len(MAGIC) + _LENGTH.size
    if len(blob) < start + 4 or blob[: len(MAGIC)] != MAGIC:
        raise DamagedChunkError(f"{name}: {len(blob)} bytes that are no encoded block; {_CURE}", key)
    stored, found = _LENGTH.unpack(blob[-4:])[0], zlib.crc32(memoryview(blob)[:-4])
    if stored != found:
        problem = f"CRC-32 is {found:08x}, expected {stored:08x}: truncated or altered"
        raise DamagedChunkError(f"{name}: {problem}; {_CURE}", key)
    end = start + _LENGTH.unpack_from(blob, len(MAGIC))[0]
    header = json.loads(blob[start:end])
    tiles = {(k, r, c): blob[end + at : end + at + size] for k, r, c, at, size in header["tiles"]}
    *shape, at, size = header["remainder"]
    pixels = zlib.decompress(blob[end + at : end + at + size])
    i, j = header["ij"]
    return EncodedBlock((i, j), header["spec"], tiles, np.frombuffer(pixels, np.uint8).reshape(shape))


class _Payload:
    """Bytes that grow; `add` says where a piece lies."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, piece: bytes) -> tuple[int, int]:
        at = len(self.data)
        self.data += piece
        return (at, len(piece))


def _pack(header: dict[str, Any], payload: bytes | bytearray) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join((MAGIC, _LENGTH.pack(len(text)), text, payload))
    return body + _LENGTH.pack(zlib.crc32(body))
