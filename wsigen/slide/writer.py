"""A full spool to a pyramidal OME-TIFF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wsigen.errors import DamagedChunkError
from wsigen.files import atomic_path
from wsigen.slide.bigtiff import level0_sha256, link_subifds
from wsigen.slide.codec import RGB, area_mean, encode_tile
from wsigen.slide.pyramid import BLOCK_LEVELS, PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import EncodedBlock

__all__ = ["blocks_read", "level0_sha256", "write_slide"]

STRIP = 512
"""Rows of the remainder image that are averaged at a time."""


def blocks_read(spec: PyramidSpec) -> int:
    """Blocks that ``write_slide`` reads, those of every level that is taken from them."""
    return len(spec.grid) * min(spec.levels, BLOCK_LEVELS)


def write_slide(
    path: str | os.PathLike[str], spec: PyramidSpec, spool: Spool, description: bytes, note: Callable[[], None] = lambda: None
) -> None:
    """Put the slide together from its encoded blocks, and only then let it appear at ``path``.

    The file's bytes depend on ``spec``, the blobs and ``description`` alone, not on the time, the order of
    the blocks or earlier attempts.

    Parameters
    ----------
    description:
        The OME-XML (`wsigen.slide.ome.ome_xml`).
    note:
        Called after every block that was read.

    Raises
    ------
    DamagedChunkError
        If a block is missing, damaged or belongs to another slide. What lay at ``path`` before is untouched.

    Notes
    ----- **Memory bound.** At most one row of blocks is held, in encoded form (about 64 MB for 100,000 px of
    width as JPEG), because tiles go into the file row by row while blocks are several tiles high. Levels 3
    and above are averaged from the remainder images, which lie side by side in an unnamed scratch file
    beside the slide (1/64 of its pixels); a tile of them is made from strips of ``STRIP`` rows. Reading a
    whole level at once would break this.
    """
    import tifffile

    missing = sorted(set(spec.grid) - spool.done())
    if missing:
        count = f"{len(missing)} of {len(spec.grid)}"
        raise DamagedChunkError(f"{path}: {count} blocks are missing, first {missing[0]}", spool.key(missing[0]))
    with (
        atomic_path(path) as beside,
        tempfile.TemporaryFile(dir=beside.parent, prefix=".wsigen-") as scratch,
    ):
        remainder = np.memmap(scratch, np.uint8, "w+", shape=(*spec.level_size(BLOCK_LEVELS), 3))
        with tifffile.TiffWriter(beside, bigtiff=True, byteorder="<") as tiff:
            for level in range(spec.levels):
                tiff.write(_tiles(spec, spool, level, remainder, note), **_tags(spec, level, description))
        link_subifds(beside)


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


def _tiles(spec: PyramidSpec, spool: Spool, level: int, remainder: RGB, note: Callable[[], None]) -> Iterator[bytes]:
    if level < BLOCK_LEVELS:
        return _block_tiles(spec, spool, level, remainder, note)
    return (encode_tile(spec, _coarse_tile(spec, level, rc, remainder)) for rc in spec.tiles_of_level(level))


def _block_tiles(spec: PyramidSpec, spool: Spool, level: int, remainder: RGB, note: Callable[[], None]) -> Iterator[bytes]:
    """Yield the blocks' tiles of one level in row-major order; on level 0 also fill the remainder image."""
    for i in range(spec.grid.rows):
        tiles: dict[tuple[int, int], bytes] = {}
        for j in range(spec.grid.columns):
            block = _checked(spec, spool, (i, j))
            tiles.update({(r, c): data for (k, r, c), data in block.tiles.items() if k == level})
            if level == 0:
                remainder[spec.block_box((i, j), BLOCK_LEVELS).slices] = block.remainder
            note()
        yield from (tiles[rc] for rc in sorted(tiles))


def _checked(spec: PyramidSpec, spool: Spool, ij: tuple[int, int]) -> EncodedBlock:
    block = spool.read(ij)
    wanted = asdict(spec)
    other = [k for k in wanted if block.spec.get(k) != wanted[k]]
    if other:
        problem = f"its {other[0]} is {block.spec.get(other[0])}, expected {wanted[other[0]]}"
        raise DamagedChunkError(f"block {ij} was made for another slide: {problem}", spool.key(ij))
    return block


def _coarse_tile(spec: PyramidSpec, level: int, rc: tuple[int, int], remainder: RGB) -> RGB:
    """Pixels of one tile of level 3 or above: area means of the remainder image, strip by strip."""
    factor = 2 ** (level - BLOCK_LEVELS)
    box = spec.level_grid(level).box(rc).scale(factor)
    rows = max(factor, STRIP)  # both powers of two: a strip holds whole boxes
    strips = (remainder[y : min(y + rows, box.y1), box.x0 : box.x1] for y in range(box.y0, box.y1, rows))
    return np.concatenate([area_mean(s, factor) for s in strips if s.size])


def top_level(path: str | os.PathLike[str], side: int) -> RGB:
    """Read the coarsest level of a slide that has ``side`` pixels on its longer side, or level 0.

    Returns
    -------
    numpy.ndarray
        uint8 ``[h, w, 3]``.
    """
    import tifffile

    with tifffile.TiffFile(Path(path)) as tiff:
        levels = tiff.series[0].levels
        fitting = [level for level in levels if max(level.shape[:2]) >= side]
        return np.asarray((fitting or levels)[-1 if fitting else 0].asarray())
