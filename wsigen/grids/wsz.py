"""Files of grids, ``*.wsz``: a zip of a zarr group with the cells, and a small picture for people.

Names inside: ``zarr.json``, ``values/...`` (float16, ``(D, rows, cols)``), ``known/...`` (bool, ``(rows, cols)``) and
``overview.jpg``. The group's attributes are a `GridFile`. Nothing of it is ever unpacked to disk.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import GridError, refusing
from wsigen.grids.grid import MOST_CHANNELS, MOST_NUMBERS, Grid, GridFile
from wsigen.storage.archive import demand_few_entries
from wsigen.storage.files import atomic_path

SUFFIX = ".wsz"
"""How the name of a grid's file ends."""

OVERVIEW = "overview.jpg"
CHUNK = 256
"""Cells of a side that are written together, and that mean colours are compressed in."""

SMALL_CHUNK, MANY_NUMBERS = 32, 16
"""Cells of a side that are compressed together where a cell has more numbers than this: windows are small."""

_CURE = "make it anew with 'wsigen compress'"

_MOST_ENTRIES = 40_000
_MOST_METADATA = 2**16

_NAMES = re.compile(r"zarr\.json|(values|known)/zarr\.json|(values|known)/c(/\d+)+|" + re.escape(OVERVIEW))


@contextmanager
def new_grid(path: Path, about: GridFile, shape: tuple[int, int, int]) -> Iterator[GridWriter]:
    """Write a file whole or not at all.

    Parameters
    ----------
    about : GridFile
        What it says of itself.
    shape : (int, int, int)
        ``(D, rows, cols)``.

    Yields
    ------
    GridWriter
        Takes the cells in bands of `CHUNK` rows.
    """
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import ZipStore

    with atomic_path(path) as beside:
        store = ZipStore(beside, mode="w")
        try:
            group = zarr.open_group(store, mode="w", attributes=about.model_dump(mode="json"))
            chunks, packed = _chunks(shape), [ZstdCodec(level=0)]
            how: dict[str, Any] = {"compressors": packed, "config": {"write_empty_chunks": True}}
            values = group.create_array("values", shape=shape, chunks=chunks, dtype="float16", **how)
            known = group.create_array("known", shape=shape[1:], chunks=_sides(shape, CHUNK), dtype="bool", **how)
            writer = GridWriter(values, known, path)
            yield writer
        finally:
            store.close()
        with zipfile.ZipFile(beside, "a") as file:
            file.writestr(OVERVIEW, writer.picture)


class GridWriter:
    """Takes the cells of a new grid, band by band; see `new_grid`."""

    def __init__(self, values: Any, known: Any, path: Path) -> None:
        self._values, self._known, self._path = values, known, path
        self.picture = b""

    def write(self, first_row: int, values: NDArray[np.floating[Any]], known: NDArray[np.bool_]) -> None:
        """Write rows; ``first_row`` is a multiple of `CHUNK`, for a chunk of a zip is written once.

        Unknown cells are written as 0.

        Raises
        ------
        GridError
            If a number of a known cell is not finite in float16.
        """
        rows = slice(first_row, first_row + known.shape[0])
        with np.errstate(over="ignore"):
            stored = np.where(known, values, 0).astype(np.float16)
        if not np.isfinite(stored).all():
            raise GridError(
                f"{self._path}: cells of rows {rows.start} to {rows.stop - 1} are not finite, or beyond 65,504, which is the "
                "most that a grid's file can hold; look at what the encoder makes, or use another"
            )
        self._values[:, rows] = stored
        self._known[rows] = known

    def overview(self, picture: NDArray[np.uint8]) -> None:
        """Take a small picture of the slide for people, uint8 ``(h, w, 3)``."""
        from PIL import Image

        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=85)
        self.picture = buffer.getvalue()


def open_wsz(path: Path) -> tuple[GridFile, Grid]:
    """Open a file; its cells are read as windows ask for them.

    Returns
    -------
    about, grid
        What it says of itself, and its cells.

    Raises
    ------
    GridError
        If it is no zip, holds other names than those above, is larger than `MOST_NUMBERS`, or says what cannot be.
    """
    about, values, known = _open(path)
    return about, Grid(_Cells(values, path), _Cells(known, path), about.cell_um, about.made_by)


class _Cells:
    """An array of a file; a damaged chunk, and numbers that are not finite, are refused in one line when they are read."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, place: Any) -> NDArray[Any]:
        with refusing(GridError, f"{self._path}: its cells cannot be read", _CURE):
            found = np.asarray(self._array[place])
            if not np.isfinite(found).all():
                raise ValueError("some are not finite")
            return found


def _open(path: Path) -> tuple[GridFile, Any, Any]:
    import zarr
    from zarr.storage import ZipStore

    with refusing(GridError, f"{path}: cannot be read as a grid (*.wsz)", _CURE, (GridError,)):
        demand_few_entries(path, _MOST_ENTRIES)
        with zipfile.ZipFile(path) as file:
            _check_entries(file)
            group = zarr.open_group(ZipStore(path, mode="r"), mode="r")
            about = GridFile.model_validate(dict(group.attrs))
            values, known = group["values"], group["known"]
            _check_arrays(values, known)
            _check_chunks(file, {"values": values, "known": known})
    return about, values, known


def _check_entries(file: zipfile.ZipFile) -> None:
    """Names as above, and nothing packed by the zip: so nothing is larger than the file (ValueError)."""
    entries = file.infolist()
    names = {entry.filename for entry in entries}
    strange = next((name for name in sorted(names) if not _NAMES.fullmatch(name)), None)
    if strange is not None or len(names) < len(entries):
        raise ValueError(f"it holds {strange!r}" if strange else "it holds a name twice")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{entry.filename} is packed by the zip")
        if entry.filename.endswith("zarr.json") and entry.file_size > _MOST_METADATA:
            raise ValueError(f"{entry.filename} has {entry.file_size} bytes")


def _check_arrays(values: Any, known: Any) -> None:
    """Sizes and types first: nothing is read before they are plausible (ValueError)."""
    if values.ndim != 3 or known.shape != values.shape[1:] or min(values.shape) < 1:
        raise ValueError(f"values {values.shape} and known {known.shape} do not fit")
    if values.size > MOST_NUMBERS or values.shape[0] > MOST_CHANNELS:
        raise ValueError(f"{values.size} numbers of {values.shape[0]} channels; at most {MOST_NUMBERS} are taken")
    if str(values.dtype) not in ("float16", "float32") or str(known.dtype) != "bool":
        raise ValueError(f"types {values.dtype} and {known.dtype}, not float16 and bool")
    for array, chunks in ((values, _chunks(values.shape)), (known, _sides(values.shape, CHUNK))):
        codecs = [codec["name"] for codec in array.metadata.to_dict()["codecs"]]
        if array.chunks != chunks or codecs != ["bytes", "zstd"]:
            raise ValueError(f"chunks of {array.chunks}, stored as {', '.join(codecs)}")


def _chunks(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Of ``values``: those of cells of many numbers take two megabytes, not a hundred."""
    return shape[0], *_sides(shape, SMALL_CHUNK if shape[0] > MANY_NUMBERS else CHUNK)


def _sides(shape: tuple[int, int, int], side: int) -> tuple[int, int]:
    return min(side, shape[1]), min(side, shape[2])


def _check_chunks(file: zipfile.ZipFile, arrays: Mapping[str, Any]) -> None:
    """All chunks are there, and none says that it takes more than its cells when it is unpacked (ValueError).

    A chunk that is not there would be read as zeros, and a few bytes of Zstandard may stand for gigabytes.
    """
    names = set(file.namelist())
    for part, array in arrays.items():
        counts = (-(-n // side) for n, side in zip(array.shape, array.chunks, strict=True))
        for place in product(*map(range, counts)):
            name = "/".join((part, "c", *map(str, place)))
            if name not in names:
                raise ValueError(f"cells are missing ({name})")
            with file.open(name) as chunk:
                size = _unpacked_bytes(chunk.read(18))
            if size > math.prod(array.chunks) * array.dtype.itemsize:
                raise ValueError(f"{name} says it takes {size} bytes")


def _unpacked_bytes(head: bytes) -> float:
    """What the header of a Zstandard frame says (RFC 8878, 3.1.1.1); infinity if it does not say."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
        return math.inf
    single, flag = head[4] >> 5 & 1, head[4] >> 6
    at = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    count = (single, 2, 4, 8)[flag]
    size = int.from_bytes(head[at : at + count], "little") + (256 if count == 2 else 0)
    return size if count else math.inf
