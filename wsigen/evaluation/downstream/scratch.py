"""`Scratch`: the pixels of crops, read from slides once and kept in an unnamed file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


class Scratch:
    """Crops of one size on disk; they are read by position, from any thread.

    Memory bound: none of it is held or mapped; whoever reads rows gets those alone.

    Parameters
    ----------
    folder:
        Where the file lies (it has no name and is gone when closed), or None: the system's place.
    side_px:
        Side of a crop (px).
    masks:
        Whether each crop has a mask.
    """

    def __init__(self, folder: Path | None, side_px: int, masks: bool) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".wsigen-")  # noqa: SIM115  # closed by close()
        self._side, self.has_masks, self.count = side_px, masks, 0
        self._bytes = side_px**2 * (4 if masks else 3)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, image: U8, mask: U8 | None) -> int:
        """Append a crop uint8 ``[P, P, 3]`` and its mask uint8 ``[P, P]``; returns its row."""
        data = image.tobytes() + (mask.tobytes() if mask is not None else b"")
        if len(data) != self._bytes:
            raise ValueError(f"{len(data)} bytes of a crop, expected {self._bytes}")
        self._file.write(data)
        self.count += 1
        return self.count - 1

    def flush(self) -> None:
        """Make what was added readable."""
        self._file.flush()

    def image(self, row: int) -> U8:
        """uint8 ``[P, P, 3]`` RGB."""
        return self._read(row, 0, 3).reshape(self._side, self._side, 3)

    def mask(self, row: int) -> U8:
        """uint8 ``[P, P]``, class indices or `classes.UNKNOWN`."""
        return self._read(row, 3, 1).reshape(self._side, self._side)

    def _read(self, row: int, first: int, planes: int) -> U8:
        plane = self._side**2
        data = os.pread(self._file.fileno(), planes * plane, row * self._bytes + first * plane)
        return np.frombuffer(data, np.uint8)
