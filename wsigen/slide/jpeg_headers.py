"""The headers of a baseline JPEG: byte for byte, and what they say (ITU-T T.81, B.2)."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsigen.slide.jpeg_huffman import AC, BLOCK, DAMAGED, DC

SCAN, HUFFMAN = 0xDA, 0xC4
"""Markers: start of scan, Huffman tables."""

_FRAMES = range(0xC0, 0xD0)  # but for HUFFMAN, and 0xC8 and 0xCC, which no JPEG of a slide has
_ALONE = (0x01, 0xD8, 0xD9)


@dataclass(frozen=True, slots=True)
class Component:
    """A plane of a JPEG.

    Attributes
    ----------
    down, across : int
        Blocks of it in an MCU.
    quanta : ndarray
        Its 64 quantisation steps, in zigzag order.
    tables : tuple of bytes
        Its Huffman tables (`DC`, `AC`).
    """

    down: int
    across: int
    quanta: NDArray[np.int32]
    tables: tuple[bytes, bytes]


@dataclass
class Headers:
    """What the headers of one stream, or of several one after the other, say.

    Attributes
    ----------
    quanta, huffman : dict
        Tables by number; those of Huffman codes by class and number.
    height, width : int
        px.
    planes : list
        Identifier, blocks of an MCU down and across, and number of the quantisation table of each plane.
    scan : dict
        Numbers of the Huffman tables by identifier of a plane.
    restart : int
        MCUs between two restart markers, 0 without.
    jfif : bool
        Whether the stream says of itself that it is JFIF, and so YCbCr.
    """

    quanta: dict[int, NDArray[np.int32]] = field(default_factory=dict)
    huffman: dict[tuple[int, int], bytes] = field(default_factory=dict)
    height: int = 0
    width: int = 0
    planes: list[tuple[int, int, int, int]] = field(default_factory=list)
    scan: dict[int, tuple[int, int]] = field(default_factory=dict)
    restart: int = 0
    jfif: bool = False

    def read(self, data: bytes) -> bytes:
        """Read the headers of a stream, and return them: all bytes before the coefficients.

        Raises
        ------
        ValueError
            If they are damaged, or not those of a baseline JPEG with all planes in one scan.
        """
        length = 0
        for marker, piece, body in segments(data):
            length += len(piece)
            try:
                self._read(marker, body)
            except (IndexError, struct.error) as error:
                raise ValueError(f"{DAMAGED}: a short header") from error
        return data[:length]

    def components(self) -> tuple[Component, ...]:
        """Return the planes.

        Raises
        ------
        ValueError
            If something of them is missing.
        """
        if not self.planes or not self.height or not self.width:
            raise ValueError("a JPEG without a frame header")
        if list(self.scan) != [number for number, *_ in self.planes]:
            raise ValueError(f"{DAMAGED}: no scan of the frame's planes")
        most = max(down for _, down, _, _ in self.planes), max(across for _, _, across, _ in self.planes)
        components = []
        for number, down, across, quanta in self.planes:
            if not (down and across) or most[0] % down or most[1] % across:
                raise ValueError(f"{DAMAGED}: planes that are subsampled by no whole number")
            try:
                tables = tuple(self.huffman[kind, self.scan[number][kind]] for kind in (DC, AC))
                components.append(Component(down, across, self.quanta[quanta], (tables[DC], tables[AC])))
            except KeyError as error:
                raise ValueError(f"{DAMAGED}: a table that its plane needs is missing") from error
        return tuple(components)

    def _read(self, marker: int, body: bytes) -> None:
        if marker == 0xDB:
            self._read_quanta(body)
        elif marker == HUFFMAN:
            self._read_huffman(body)
        elif marker in (0xC0, 0xC1):
            self._read_frame(body)
        elif marker in _FRAMES:
            raise ValueError("tiles of progressive, lossless or arithmetic JPEG; only baseline JPEG can be changed in part")
        elif marker == SCAN:
            self._read_scan(body)
        elif marker == 0xDD:
            self.restart = int(struct.unpack_from(">H", body)[0])
        elif marker == 0xE0 and body.startswith(b"JFIF\0"):
            self.jfif = True

    def _read_quanta(self, body: bytes) -> None:
        while body:
            kind, number = (">u2", body[0] & 15) if body[0] >> 4 else ("u1", body[0])
            length = BLOCK * np.dtype(kind).itemsize
            values = np.frombuffer(body[1 : 1 + length].ljust(length, b"\0"), kind).astype(np.int32)
            if not values.all():
                raise ValueError(f"{DAMAGED}: a quantisation table")
            self.quanta[number] = values
            body = body[1 + length :]

    def _read_huffman(self, body: bytes) -> None:
        while body:
            length = 16 + sum(body[1:17])
            table = body[1 : 1 + length]
            if len(table) != length or length > 16 + 256:
                raise ValueError(f"{DAMAGED}: a Huffman table")
            self.huffman[body[0] >> 4, body[0] & 15] = table
            body = body[1 + length :]

    def _read_frame(self, body: bytes) -> None:
        bits, self.height, self.width, count = struct.unpack_from(">BHHB", body)
        if bits != 8 or count != 3:
            raise ValueError(f"tiles of {count} planes of {bits} bits as JPEG; only RGB of 8 bits can be changed in part")
        parts = (body[6 + 3 * i : 9 + 3 * i] for i in range(count))
        self.planes = [(part[0], part[1] & 15, part[1] >> 4, part[2]) for part in parts]

    def _read_scan(self, body: bytes) -> None:
        pairs = body[1 : 1 + 2 * body[0]]
        self.scan = {pairs[i]: (pairs[i + 1] >> 4, pairs[i + 1] & 15) for i in range(0, len(pairs), 2)}
        if body[0] != 3 or body[1 + len(pairs) :] != b"\x00\x3f\x00":
            raise ValueError("tiles of JPEG with several scans; only baseline JPEG with one can be changed in part")


def segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each marker up to that of the scan, its segment with all bytes, and its body.

    Raises
    ------
    ValueError
        If there is something else than segments.
    """
    at = 0
    while at < len(data):
        start = at
        at += 1
        while data[at : at + 1] == b"\xff":  # fill bytes
            at += 1
        if data[start] != 0xFF or at >= len(data):
            raise ValueError(f"{DAMAGED}: no marker at byte {start}")
        marker, body = data[at], at + 3
        at += 1
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
        if at > len(data) or (marker not in _ALONE and at < body):
            raise ValueError(f"{DAMAGED}: a segment that ends nowhere")
        yield marker, data[start:at], data[body:at]
        if marker in (SCAN, 0xD9):
            return


@functools.cache
def usual_tables() -> dict[tuple[int, int], bytes]:
    """The Huffman tables of T.81, K.3, by class and number, which have a code for everything; taken from libjpeg."""
    import imagecodecs

    headers = Headers()
    headers.read(bytes(imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8), colorspace="RGB", outcolorspace="YCBCR")))
    return headers.huffman
