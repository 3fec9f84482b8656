"""HDF5 files of strangers, read by pyfive within bounds: how much is read, and what a chunk unpacks to.

pyfive follows the file's tables wherever they point, as often as they say, and unpacks whatever a chunk unpacks to.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHUFFLE, _GZIP, _CHECKSUM = 2, 1, 3
"""Filters of the HDF5 format by their numbers, in the order in which they are written."""

_MOST_OF_A_FILE, _EXTRA_BYTES = 4, 2**20
_BYTES_A_READ, _EXTRA_READS = 4, 2**16
"""What a sound file needs: its tables once, its chunks twice, a few bytes of every header several times."""


class BoundedFile:
    """A file that is read no more often than it is large; ValueError where more is asked of it.

    It has no ``fileno``: with one, pyfive would open the file a second time by its name.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file = path.open("rb")
        size = path.stat().st_size
        self._bytes = _MOST_OF_A_FILE * size + _EXTRA_BYTES
        self._reads = size // _BYTES_A_READ + _EXTRA_READS

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._file.closed

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes."""
        content = self._file.read(size)
        self._reads -= 1
        self._bytes -= len(content)
        if min(self._reads, self._bytes) < 0:
            raise ValueError("its tables point at the same bytes again and again")
        return content

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __enter__(self) -> BoundedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_numbers(data: Any) -> NDArray[Any]:
    """All of a dataset of pyfive, of which no chunk unpacks to more than it holds.

    Raises
    ------
    ValueError
        If one does, or it is packed in another way than by gzip.
    """
    if data.chunks:
        _check_chunks(data)
    elif data.id.layout_class == 1:
        data.id.set_pseudo_chunk_size(0)  # its pieces would end beyond the file
    return np.asarray(data[...])


def _check_chunks(data: Any) -> None:
    """Unpack every chunk as far as it may go."""
    filters = [step["filter_id"] for step in data.id.filter_pipeline or ()]
    if filters != [known for known in (_SHUFFLE, _GZIP, _CHECKSUM) if known in filters]:
        raise ValueError(f"'{data.name}' is packed by filters {filters} of HDF5; only shuffle and gzip are read")
    if _GZIP not in filters:
        return
    most = int(np.prod(data.chunks)) * data.dtype.itemsize
    for number in range(data.id.get_num_chunks()):
        chunk = data.id.get_chunk_info(number)
        skipped, packed = data.id.read_direct_chunk(chunk.chunk_offset)
        if not skipped >> filters.index(_GZIP) & 1 and len(zlib.decompressobj().decompress(packed, most + 1)) > most:
            raise ValueError(f"a chunk of '{data.name}' unpacks to more than its {most} bytes")
