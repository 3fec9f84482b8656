"""Pixels to encoded tiles, and a block's tiles packed into one self-describing blob of bytes, and back.

Layout of a blob: magic, payload, table (JSON), length of the table and CRC-32 of all before it (uint32, little-endian).
The table says which block of which slide this is, and where in the payload each tile lies. Tiles may share bytes.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DamagedChunkError
from wsigen.slide.pyramid import BLOCK_LEVELS, PyramidSpec

RGB = NDArray[np.uint8]

TileKey = tuple[int, int, int]
"""``(level, row, column)``; row and column count the tiles of the whole level."""

MAGIC = b"wsiblk2\n"

STRIP = 128
"""Rows that are shrunk at a time, so that the sums of a wide image stay in the cache (measured: 32 to 256)."""

_MOST_SIDE = 4096
"""Of a block's remainder image, px: an eighth of the block's side."""

_CURE = "delete it and it will be made again"

_NUMBER = struct.Struct("<I")


@dataclass(frozen=True)
class EncodedBlock:
    """One block, encoded.

    Attributes
    ----------
    ij : tuple of int
        The block's position in ``PyramidSpec.grid``.
    spec : dict of str to Any
        The fields of the `PyramidSpec` the block was encoded for.
    tiles : mapping of TileKey to bytes
        Tile bytes by ``(level, row, column)``.
    remainder : ndarray
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
    rgb : ndarray
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
    stored, computed = _NUMBER.unpack(data[end + _NUMBER.size :])[0], _checksum(data[: end + _NUMBER.size])
    if stored != computed:
        problem = f"CRC-32 is {computed:08x}, expected {stored:08x}: truncated or altered"
        raise DamagedChunkError(f"{name}: {problem}; {_CURE}", key)
    try:
        table = json.loads(bytes(data[end - _NUMBER.unpack_from(blob, end)[0] : end]))
        tiles = {(k, r, c): bytes(data[at : at + size]) for k, r, c, at, size in table["tiles"]}
        *shape, at, size = table["remainder"]
        if not (1 <= shape[0] <= _MOST_SIDE and 1 <= shape[1] <= _MOST_SIDE and shape[2:] == [3]):
            raise ValueError(f"remainder of shape {shape}")
        pixels = zlib.decompressobj().decompress(data[at : at + size], math.prod(shape))  # and not whatever it may hold
        i, j = table["ij"]
        return EncodedBlock((i, j), table["spec"], tiles, np.frombuffer(pixels, np.uint8).reshape(shape))
    except Exception as error:  # a checksum that fits says nothing of who wrote the rest
        raise DamagedChunkError(f"{name}: its content cannot be read ({type(error).__name__}); {_CURE}", key) from error


def encode_tile(spec: PyramidSpec, rgb: RGB) -> bytes:
    """Encode one tile as a viewer will find it in the file.

    Parameters
    ----------
    rgb : ndarray
        uint8 ``[h, w, 3]``, at most one tile; the missing rows and columns of an edge tile repeat the last
        ones, which costs fewer bytes than a hard border and leaves no fringe.

    Returns
    -------
    bytes
        A whole JPEG stream (YCbCr 4:2:0: Bio-Formats converts the colours of 4:4:4 twice), or a zlib stream
        of the horizontal differences (TIFF predictor 2).
    """
    import imagecodecs

    h, w = rgb.shape[:2]
    full = np.pad(rgb, ((0, spec.tile - h), (0, spec.tile - w), (0, 0)), mode="edge") if min(h, w) < spec.tile else rgb
    full = np.ascontiguousarray(full)
    if spec.compression == "jpeg":
        return bytes(
            imagecodecs.jpeg8_encode(full, level=spec.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
        )
    differences = imagecodecs.delta_encode(full, axis=-2)
    return bytes(imagecodecs.deflate_encode(differences.tobytes(), level=6))


def area_mean(rgb: RGB, factor: int) -> RGB:
    """Shrink uint8 ``[h, w, 3]`` by an integer factor, each pixel the mean of those it covers, rounded once, halves upwards.

    The result is ``[ceil(h / factor), ceil(w / factor), 3]``; a box that reaches over the edge is averaged
    over the pixels that exist.
    """
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).reduce(factor))


def area_means(rgb: RGB) -> list[RGB]:
    """Return the area means at 1/2, 1/4 and 1/8 of uint8 ``[h, w, 3]``, the same pixels as by `area_mean`.

    Where they fit evenly the sums are shared, which takes half the time: shrinking by each factor for itself was a third of
    packing a slide.
    """
    factor = 2**BLOCK_LEVELS
    height, width = rgb.shape[:2]
    if height % factor or width % factor:
        return [area_mean(rgb, 2**k) for k in range(1, BLOCK_LEVELS + 1)]
    means = [np.empty((height >> k, width >> k, 3), np.uint8) for k in range(1, BLOCK_LEVELS + 1)]
    for y in range(0, height, STRIP):
        sums: NDArray[Any] = rgb[y : y + STRIP].reshape(-1, 3 * width)
        for k, mean in enumerate(means, start=1):
            rows = np.add(sums[0::2], sums[1::2], dtype=np.uint16)  # 64 bytes add up to less than 2^16
            sums = np.empty((len(rows), rows.shape[1] // 2), np.uint16)
            for channel in range(3):  # whole pixels, of three numbers, would be copied one by one
                np.add(rows[:, channel::6], rows[:, channel + 3 :: 6], out=sums[:, channel::3])
            rounded = (sums + np.uint16(1 << (2 * k - 1))) >> np.uint16(2 * k)
            mean[y >> k : (y >> k) + len(sums)] = rounded.reshape(len(sums), -1, 3)
    return means


def is_plain(rgb: RGB) -> bool:
    """Whether all pixels of uint8 ``[h, w, 3]`` have one colour (the first row alone gives tissue away)."""
    return bool((rgb[0] == rgb[0, 0]).all() and (rgb == rgb[0]).all())


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
