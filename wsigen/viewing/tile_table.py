"""Where the tiles of a TIFF lie, so that a browser can fetch them by itself.

A tile of a slide of ours is a whole JPEG, or a zlib stream. The TIFF lists the offsets and sizes of a level's tiles in two
arrays; said is where these lie, and the page reads the parts that it needs. So what is said of a slide of any size is about
a kilobyte, and any host that answers range requests will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsigen.slide.formats import kind_of
from wsigen.slide.openslide_reader import vendor_of
from wsigen.slide.tiff_reader import YCBCR, TiffReader

JPEG, DEFLATE = 7, 8
"""Values of the tag Compression that browsers decode."""

RGB = 2
DIFFERENCES = 2
"""Value of the tag Predictor: each sample less the one of the pixel before."""

OFFSETS, COUNTS = "TileOffsets", "TileByteCounts"


def tile_table(path: Path) -> dict[str, Any] | None:
    """Return where the tiles of a slide lie; None if a browser cannot decode them or find its way in the levels.

    Each level has to be half as large as the one before (rounded up or down) and of equal tiles; of JPEG only whole YCbCr
    streams will do (tables that are kept apart, and RGB in JPEG, are what browsers get wrong), of deflate 8-bit RGB.

    Returns
    -------
    dict or None
        ``tile`` (px), ``compression`` (``jpeg`` or ``deflate``), ``differences``, ``little`` (byte order), and ``levels``,
        finest first: ``across``, ``down`` (tiles), ``offsets`` and ``counts``: place of the array in the file, its first
        byte and the bytes of a number.

    Raises
    ------
    ImageError
        If it is a TIFF that cannot be read.
    """
    if kind_of(path) != "TIFF" or vendor_of(str(path)) is not None:
        return None
    reader = TiffReader.open(str(path))
    pages = [level.keyframe for level in reader.image.levels]
    if len(reader.image.planes) != 1 or not _alike(pages) or not _halved(reader.info.levels) or not _decodable(pages[0]):
        return None
    return {
        "tile": pages[0].tilewidth,
        "compression": "jpeg" if pages[0].compression == JPEG else "deflate",
        "differences": pages[0].predictor == DIFFERENCES,
        "little": reader.tif.byteorder == "<",
        "levels": [_level(page) for page in pages],
    }


def _level(page: Any) -> dict[str, Any]:
    return {
        "across": math.ceil(page.imagewidth / page.tilewidth),
        "down": math.ceil(page.imagelength / page.tilelength),
        "offsets": _array(page.tags[OFFSETS]),
        "counts": _array(page.tags[COUNTS]),
    }


def _array(tag: Any) -> list[int]:
    """Place of a tag's values in the file, and the bytes of each."""
    return [tag.valueoffset, {3: 2, 4: 4, 13: 4, 16: 8, 18: 8}[int(tag.dtype)]]


def _alike(pages: Sequence[Any]) -> bool:
    first = pages[0]
    wanted = (first.compression, first.photometric, first.predictor, first.tilewidth, first.tilelength)
    for page in pages:
        if not page.is_tiled or OFFSETS not in page.tags or COUNTS not in page.tags:
            return False
        if (page.compression, page.photometric, page.predictor, page.tilewidth, page.tilelength) != wanted:
            return False
    return first.tilewidth == first.tilelength


def _halved(sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether each level is half of the one before, so that a px of level k is 2^k px wide."""
    return all(
        here in (full >> level, -(-full >> level))
        for level, size in enumerate(sizes)
        for here, full in zip(size, sizes[0], strict=True)
    )


def _decodable(page: Any) -> bool:
    if page.dtype != "uint8" or page.samplesperpixel != 3 or page.planarconfig != 1:
        return False
    if page.compression == JPEG:
        return page.photometric == YCBCR and page.jpegtables is None
    return page.compression == DEFLATE and page.photometric == RGB and page.predictor in (1, DIFFERENCES)
