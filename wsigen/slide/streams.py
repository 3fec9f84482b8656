"""Tiles that are pictures of their own (JPEG, JPEG 2000, JPEG XL, WebP, PNG): how large they are, before they are decoded.

A tile of 256 px may hold a JPEG of 65,000 px, which takes 12 GB to be refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

SizeOf = Callable[[bytes], tuple[int, int]]

PLAIN = {1, 5, 8, 32946, 32773, 34925, 50000, 34926}
"""Compressions of TIFF whose output tifffile bounds: none, LZW, deflate, PackBits, LZMA, Zstandard."""


PADDING = 64
"""Rows and columns by which an encoder may fill up a tile or strip to whole blocks, px."""


def demand_size(compression: int, data: bytes, most: tuple[int, int]) -> None:
    """Refuse a stored tile or strip that is a larger picture than it can be (ValueError).

    Parameters
    ----------
    compression : int
        Value of the TIFF tag.
    most : tuple of int
        ``(height, width)`` of a tile or strip.
    """
    if compression in PLAIN:
        return
    if compression not in _SIZES:
        raise ValueError(f"compression {compression} is not read; save it with JPEG or deflate")
    height, width = _SIZES[compression](data)
    if height * width > (most[0] + PADDING) * (most[1] + PADDING):
        raise ValueError(f"a tile of {most[1]} x {most[0]} px holds a picture of {width} x {height} px")


def _jpeg(data: bytes) -> tuple[int, int]:
    """Of a frame header (ITU-T T.81, B.2.2); markers before it are passed over."""
    at = 2
    while at + 9 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ValueError("a JPEG without a frame header")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no segment
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ValueError("a JPEG without a frame header")


def _jpeg2000(data: bytes) -> tuple[int, int]:
    """Of the SIZ segment (ITU-T T.800, A.5.1), in a codestream or a JP2 file."""
    found = [struct.unpack_from(">IIII", data, match.end() + 4) for match in re.finditer(b"\xff\x4f\xff\x51", data)]
    if not found:
        raise ValueError("a JPEG 2000 without a codestream")
    return max(height - top for _, height, _, top in found), max(width - left for width, _, left, _ in found)


def _webp(data: bytes) -> tuple[int, int]:
    """Of the first chunk (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpegxl(data: bytes) -> tuple[int, int]:
    """Of the size header (ISO/IEC 18181-1, D.2) of a bare codestream."""
    if data[:2] != b"\xff\x0a":
        raise ValueError("a JPEG XL that is no bare codestream")
    bits = int.from_bytes(data[2:14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(eighths: int) -> int:
        return 8 * (1 + take(5)) if eighths else 1 + take((9, 13, 18, 30)[take(2)])

    eighths = take(1)
    height = side(eighths)
    above, below = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return height, height * above // below or side(eighths)


_SIZES: dict[int, SizeOf] = {
    **dict.fromkeys((7, 33007, 34892), _jpeg),
    **dict.fromkeys((33003, 33004, 33005, 34712), _jpeg2000),
    **dict.fromkeys((34927, 50001), _webp),
    34933: _png,
    50002: _jpegxl,
}
