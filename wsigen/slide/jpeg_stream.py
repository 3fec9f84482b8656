"""A baseline JPEG as quantised DCT coefficients, and back without loss (ITU-T T.81).

Re-encoding a decoded tile changes nearly half of its pixels, even with the same settings. Coefficients that are read and
written again stay what they are. The headers are kept byte for byte, so that a stream whose tables lie elsewhere (the tag
JPEGTables) stays one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsigen.slide.jpeg_headers import HUFFMAN, SCAN, Component, Headers, segments, usual_tables
from wsigen.slide.jpeg_huffman import AC, BLOCK, DAMAGED, DC, Blocks, NoCodeError, decode, encode

Plane = NDArray[np.int32]
"""Quantised coefficients of a component, ``(rows, columns, 64)`` of blocks, in zigzag order."""

_OWN = (2, 3)
"""Numbers of a stream's own Huffman tables beside shared ones: extended sequential JPEG has four a class, baseline two."""


@dataclass(frozen=True, slots=True)
class JpegStream:
    """A baseline JPEG of one scan.

    Attributes
    ----------
    head : bytes
        Everything before the coefficients.
    scan : bytes
        The coefficients, Huffman coded.
    height, width : int
        px.
    components : tuple of Component
        Its planes.
    shared : bool
        Whether Huffman tables that other streams need lie elsewhere.
    restart : int
        MCUs between two restart markers, 0 without.
    jfif : bool
        Whether it says of itself that it is JFIF, and so YCbCr.
    """

    head: bytes
    scan: bytes
    height: int
    width: int
    components: tuple[Component, ...]
    shared: bool
    restart: int
    jfif: bool

    @classmethod
    def parse(cls, data: bytes, tables: bytes = b"") -> JpegStream:
        """Take a stream apart.

        Parameters
        ----------
        tables : bytes
            A stream of tables alone, as in the tag JPEGTables.

        Raises
        ------
        ValueError
            If it is damaged, or not baseline with all planes in one scan.
        """
        headers = Headers()
        headers.read(tables)
        shared = bool(headers.huffman)
        if any(number in _OWN for _, number in headers.huffman):
            raise ValueError("shared Huffman tables with numbers that no baseline JPEG has")
        head = headers.read(data)
        end = data.rfind(b"\xff\xd9")
        scan = data[len(head) : end if end >= len(head) else len(data)]
        parts = headers.components()
        return cls(head, scan, headers.height, headers.width, parts, shared, headers.restart, headers.jfif)

    @property
    def mcu(self) -> tuple[int, int]:
        """``(height, width)`` of an MCU, the smallest part that is coded on its own (px)."""
        return 8 * max(c.down for c in self.components), 8 * max(c.across for c in self.components)

    @property
    def mcus(self) -> tuple[int, int]:
        """Rows and columns of MCUs."""
        return -(-self.height // self.mcu[0]), -(-self.width // self.mcu[1])

    def planes(self) -> list[Plane]:
        """Return the coefficients of each component.

        Raises
        ------
        ValueError
            If the stream is damaged.
        """
        rows, columns = self.mcus
        parts = _unstuffed(self.scan, self.restart, rows * columns)
        blocks = np.concatenate([decode(part, n, self._slots, self._tables) for part, n in parts])
        by_mcu = blocks.reshape(rows, columns, len(self._slots), BLOCK)
        planes, first = [], 0
        for c in self.components:
            part = by_mcu[:, :, first : first + c.down * c.across].reshape(rows, columns, c.down, c.across, BLOCK)
            planes.append(part.transpose(0, 2, 1, 3, 4).reshape(rows * c.down, columns * c.across, BLOCK))
            first += c.down * c.across
        return planes

    def with_planes(self, planes: Sequence[Plane]) -> bytes:
        """Return the stream with other coefficients.

        The Huffman tables stay, unless they lack a code: then the stream gets the usual ones. Beside tables that lie elsewhere,
        where other streams need them, these have other numbers: libtiff keeps the tables of a tile for the next one.

        Raises
        ------
        ValueError
            If a coefficient is out of range.
        """
        rows, columns = self.mcus
        parts = []
        for plane, c in zip(planes, self.components, strict=True):
            part = plane.reshape(rows, c.down, columns, c.across, BLOCK).transpose(0, 2, 1, 3, 4)
            parts.append(part.reshape(rows * columns, c.down * c.across, BLOCK))
        blocks = np.concatenate(parts, axis=1)
        try:
            return self._with_blocks(blocks)
        except NoCodeError:
            return self._with_usual_tables()._with_blocks(blocks)

    @property
    def _slots(self) -> list[int]:
        """The component of each block of an MCU, in their order in the stream."""
        return [i for i, c in enumerate(self.components) for _ in range(c.down * c.across)]

    @property
    def _tables(self) -> list[tuple[bytes, bytes]]:
        return [c.tables for c in self.components]

    def _with_blocks(self, blocks: Blocks) -> bytes:
        """The stream with other blocks, ``(mcus, slots, 64)``."""
        step = self.restart or len(blocks)
        starts = range(0, len(blocks), step)
        parts = [encode(blocks[at : at + step].reshape(-1, BLOCK), self._slots, self._tables) for at in starts]
        rest = (bytes((0xFF, 0xD0 + i % 8)) + part for i, part in enumerate(parts[1:]))
        return b"".join((self.head, parts[0], *rest, b"\xff\xd9"))

    def _with_usual_tables(self) -> JpegStream:
        """The same headers with Huffman tables that have a code for everything."""
        numbers, tables = _OWN if self.shared else (0, 1), usual_tables()
        head = b""
        for marker, piece, body in segments(self.head):
            if marker == SCAN:
                chosen = b"".join(bytes((body[1 + 2 * i], 0x11 * numbers[i > 0])) for i in range(len(self.components)))
                scan = _segment(SCAN, body[:1] + chosen + body[1 + len(chosen) :])
            elif self.shared and marker == 0xC0:
                head += _segment(0xC1, body)
            elif marker != HUFFMAN:
                head += piece
        for (kind, number), table in tables.items():
            head += _segment(HUFFMAN, bytes((kind << 4 | numbers[number],)) + table)
        parts = [replace(c, tables=(tables[DC, i > 0], tables[AC, i > 0])) for i, c in enumerate(self.components)]
        return replace(self, head=head + scan, components=tuple(parts))


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _unstuffed(scan: bytes, restart: int, mcus: int) -> list[tuple[bytes, int]]:
    """What lies between restart markers without stuffed bytes, and how many MCUs that are."""
    parts = re.split(b"\xff[\xd0-\xd7]", scan) if restart else [scan]
    step = restart or mcus
    if len(parts) != -(-mcus // step):
        raise ValueError(f"{DAMAGED}: {len(parts)} parts between restart markers, expected {-(-mcus // step)}")
    return [(part.replace(b"\xff\x00", b"\xff"), min(step, mcus - i * step)) for i, part in enumerate(parts)]
