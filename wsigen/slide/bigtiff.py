"""What tifffile leaves to do about a BigTIFF file: the OpenSlide link, and a checksum of the tiles."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

from wsigen.base.errors import OutputError

_HEADER = b"II\x2b\x00\x08\x00\x00\x00"  # little-endian BigTIFF, offsets of 8 bytes
_ENTRY = struct.Struct("<HHQQ")  # tag, type, count, value or offset
_SUBIFDS = 330


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


def _u64(file: BinaryIO, at: int) -> int:
    file.seek(at)
    return int(struct.unpack("<Q", file.read(8))[0])
