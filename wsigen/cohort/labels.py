"""Label rasters: the class map of a slide as a PNG with a palette, at the class map's own resolution.

The value of a pixel is the class's position in ``labels/classes.csv``; 255 is unknown. The file is written a band at a time.
"""

from __future__ import annotations

import csv
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.geometry import Box
from wsigen.storage.files import atomic_path, write_atomic

BAND = 256
"""Rows that are read at a time."""

UNKNOWN_RGB = (0, 0, 0)

CLASS_TABLE = "classes.csv"


def write_labels(path: Path, rows: Callable[[Box], NDArray[np.uint8]], shape: tuple[int, int], table: ClassTable) -> None:
    """Write a class map as a PNG (8 bit, palette), whole or not at all.

    Parameters
    ----------
    rows : callable
        Gives the classes of a box of cells, uint8 ``(h, w)``.
    shape : tuple of int
        ``(height, width)`` in cells.
    """
    height, width = shape
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(table)] = [tissue.color for tissue in table]
    palette[UNKNOWN] = UNKNOWN_RGB
    with atomic_path(path) as beside, beside.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)))
        file.write(_chunk(b"PLTE", palette.tobytes()))
        packed = zlib.compressobj(6)
        for y in range(0, height, BAND):
            cells = rows(Box(y, 0, min(y + BAND, height), width))
            lines = np.concatenate([np.zeros((len(cells), 1), np.uint8), cells], axis=1)  # filter 0 before each line
            if data := packed.compress(lines.tobytes()):
                file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IDAT", packed.flush()))
        file.write(_chunk(b"IEND", b""))


def write_class_table(path: Path, table: ClassTable) -> None:
    """Write which value is which class, with its colour, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("value", "class", "red", "green", "blue", "background"))
    rows.writerows((k, c.name, *c.color, "yes" if c.background else "no") for k, c in enumerate(table))
    rows.writerow((UNKNOWN, "", *UNKNOWN_RGB, "no"))
    write_atomic(path, text.getvalue().encode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
