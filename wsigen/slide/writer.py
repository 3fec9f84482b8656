"""A full spool to a pyramidal OME-TIFF, and the checksum of its tiles.

tifffile writes the file; left to do is the link by which OpenSlide finds the reduced levels.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from wsigen.base.errors import DamagedChunkError, OutputError
from wsigen.slide.pyramid import BLOCK_LEVELS, PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import RGB, EncodedBlock, TileKey, area_mean, encode_tile
from wsigen.storage.files import atomic_path

STRIP = 512
"""Rows of the remainder image that are averaged at a time."""

_HEADER = b"II\x2b\x00\x08\x00\x00\x00"  # little-endian BigTIFF, offsets of 8 bytes
_ENTRY = struct.Struct("<HHQQ")  # tag, type, count, value or offset
_SUBIFDS = 330


def write_slide(
    path: str | os.PathLike[str], spec: PyramidSpec, spool: Spool, description: bytes, note: Callable[[], None] = lambda: None
) -> None:
    """Put the slide together from its encoded blocks, and only then let it appear at ``path``.

    The file's bytes depend on ``spec``, the blobs and ``description`` alone, not on the time, the order of
    the blocks or earlier attempts.

    Parameters
    ----------
    description : bytes
        The OME-XML (`wsigen.slide.ome.ome_xml`).
    note : callable
        Called after every block that was read.

    Raises
    ------
    DamagedChunkError
        If a block is missing, damaged or belongs to another slide. What lay at ``path`` before is untouched.

    Notes
    -----
    **Memory bound.** At most one row of blocks is held, in encoded form (about 64 MB for 100,000 px of
    width as JPEG), because tiles go into the file row by row while blocks are several tiles high. Levels 3
    and above are averaged from the remainder images, which lie side by side in an unnamed scratch file
    beside the slide (1/64 of its pixels); a tile of them is made from strips of ``STRIP`` rows, and pages of that file
    are given back row by row. Reading a whole level at once would break this.

    Every block is read and checked once: a file's levels follow each other, so that tiles of levels 1 and 2 wait in a second
    scratch file (`scratch_bytes` in all).
    """
    import tifffile

    missing = sorted(set(spec.grid) - spool.done())
    if missing:
        count = f"{len(missing)} of {len(spec.grid)}"
        raise DamagedChunkError(f"{path}: {count} blocks are missing, first {missing[0]}", spool.key(missing[0]))
    with (
        atomic_path(path) as beside,
        tempfile.TemporaryFile(dir=beside.parent, prefix=".wsigen-") as pixels,
        tempfile.TemporaryFile(dir=beside.parent, prefix=".wsigen-") as tiles,
    ):
        remainder = np.memmap(pixels, np.uint8, "w+", shape=(*spec.level_size(BLOCK_LEVELS), 3))
        waiting = _Waiting(tiles)
        with tifffile.TiffWriter(beside, bigtiff=True, byteorder="<") as tiff:
            for level in range(spec.levels):
                tiff.write(_tiles(spec, spool, level, remainder, waiting, note), **_tags(spec, level, description))
        link_subifds(beside)


def scratch_bytes(spec: PyramidSpec, bytes_per_px: float) -> int:
    """Disk that `write_slide` takes for its scratch files, beside the slide.

    Parameters
    ----------
    bytes_per_px : float
        Of an encoded tile.
    """
    areas = (math.prod(spec.level_size(level)) for level in range(1, min(spec.levels, BLOCK_LEVELS)))
    return int(sum(areas) * bytes_per_px) + math.prod(spec.level_size(BLOCK_LEVELS)) * 3


def level0_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the encoded tiles of level 0, one after the other in row-major order.

    It says that two slides have the same pixels whatever their metadata.
    """
    import tifffile

    digest = hashlib.sha256()
    with tifffile.TiffFile(path) as tiff, Path(path).open("rb") as file:
        page = tiff.pages[0]
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            digest.update(file.read(size))
    return digest.hexdigest()


class _Waiting:
    """Encoded tiles in a file, by level and place, until their level's turn."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[TileKey, tuple[int, int]] = {}
        self._end = 0

    def put(self, key: TileKey, data: bytes) -> None:
        self._file.write(data)
        self._places[key] = (self._end, len(data))
        self._end += len(data)

    def take(self, level: int) -> Iterator[bytes]:
        """Tiles of a level, row by row."""
        for key in sorted(key for key in self._places if key[0] == level):
            at, size = self._places.pop(key)
            self._file.seek(at)
            yield self._file.read(size)


def _tags(spec: PyramidSpec, level: int, description: bytes) -> dict[str, object]:
    per_centimetre = 10_000 / spec.level_mpp(level)
    jpeg = spec.compression == "jpeg"
    return {
        "shape": (*spec.level_size(level), 3),
        "dtype": "uint8",
        "tile": (spec.tile, spec.tile),
        "photometric": "rgb",  # of the pixels given; tifffile tags JPEG tiles as YCbCr
        "compression": "jpeg" if jpeg else "adobe_deflate",
        "subsampling": (2, 2) if jpeg else None,
        "predictor": None if jpeg else 2,
        "resolution": (per_centimetre, per_centimetre),
        "resolutionunit": "CENTIMETER",
        "description": description if level == 0 else None,
        "software": "wsigen" if level == 0 else False,
        "subifds": spec.levels - 1 if level == 0 else None,
        "subfiletype": 0 if level == 0 else 1,
        "metadata": None,
    }


def _tiles(
    spec: PyramidSpec, spool: Spool, level: int, remainder: np.memmap, waiting: _Waiting, note: Callable[[], None]
) -> Iterator[bytes]:
    if level == 0:
        return _block_tiles(spec, spool, remainder, waiting, note)
    return waiting.take(level) if level < BLOCK_LEVELS else _coarse_tiles(spec, level, remainder)


def _block_tiles(
    spec: PyramidSpec, spool: Spool, remainder: np.memmap, waiting: _Waiting, note: Callable[[], None]
) -> Iterator[bytes]:
    """Yield the blocks' tiles of level 0 in row-major order; those of other levels wait, and the remainder image is filled."""
    for i in range(spec.grid.rows):
        tiles: dict[tuple[int, int], bytes] = {}
        for j in range(spec.grid.columns):
            block = _checked(spec, spool, (i, j))
            for (level, row, column), data in block.tiles.items():
                if level == 0:
                    tiles[row, column] = data
                else:
                    waiting.put((level, row, column), data)
            note()
            remainder[spec.block_box((i, j), BLOCK_LEVELS).slices] = block.remainder
        _give_back(remainder)
        yield from (tiles[rc] for rc in sorted(tiles))


def _checked(spec: PyramidSpec, spool: Spool, ij: tuple[int, int]) -> EncodedBlock:
    block = spool.read(ij)
    wanted = asdict(spec)
    other = [k for k in wanted if block.spec.get(k) != wanted[k]]
    if other:
        problem = f"its {other[0]} is {block.spec.get(other[0])}, expected {wanted[other[0]]}"
        raise DamagedChunkError(f"block {ij} was made for another slide: {problem}", spool.key(ij))
    return block


def _coarse_tiles(spec: PyramidSpec, level: int, remainder: np.memmap) -> Iterator[bytes]:
    row = 0
    for rc in spec.tiles_of_level(level):
        if rc[0] != row:
            _give_back(remainder)
            row = rc[0]
        yield encode_tile(spec, _coarse_tile(spec, level, rc, remainder))


def _coarse_tile(spec: PyramidSpec, level: int, rc: tuple[int, int], remainder: RGB) -> RGB:
    """Pixels of one tile of level 3 or above: area means of the remainder image, strip by strip."""
    factor = 2 ** (level - BLOCK_LEVELS)
    box = spec.level_grid(level).box(rc).scale(factor)
    rows = max(factor, STRIP)  # both powers of two: a strip holds whole boxes
    strips = (remainder[y : min(y + rows, box.y1), box.x0 : box.x1] for y in range(box.y0, box.y1, rows))
    return np.concatenate([area_mean(s, factor) for s in strips if s.size])


def _give_back(mapped: np.memmap) -> None:
    """Count the pages of a mapped file no longer as this process's; what they hold stays in the file."""
    if sys.platform == "linux":
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # NumPy has no other way to it


def link_subifds(path: str | os.PathLike[str]) -> None:
    """Make the first reduced level follow the main image, in place.

    An OME-TIFF keeps its reduced levels in SubIFDs, which OpenSlide does not look at: it walks the chain of
    main IFDs. tifffile chains the SubIFDs already, so setting the main IFD's "next" field to the first of
    them shows OpenSlide the whole pyramid, and readers that know SubIFDs see no difference.

    Raises
    ------
    OutputError
        If the file is no little-endian BigTIFF with one main IFD and SubIFDs.
    """
    with Path(path).open("r+b") as file:
        if file.read(8) != _HEADER:
            raise OutputError(f"{path}: not a little-endian BigTIFF file; cannot link its levels")
        ifd = _u64(file, 8)
        count = _u64(file, ifd)
        entries = file.read(count * _ENTRY.size)
        tags = {tag: (number, value) for tag, _, number, value in _ENTRY.iter_unpack(entries)}
        following = ifd + 8 + len(entries)
        if _SUBIFDS not in tags or _u64(file, following) != 0:
            raise OutputError(f"{path}: expected one main image with SubIFDs; cannot link its levels")
        number, value = tags[_SUBIFDS]
        first = value if number == 1 else _u64(file, value)
        file.seek(following)
        file.write(struct.pack("<Q", first))


def _u64(file: BinaryIO, at: int) -> int:
    file.seek(at)
    return int(struct.unpack("<Q", file.read(8))[0])
