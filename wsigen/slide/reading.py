"""The one reader of images and slides: a file's size, um/px and levels, and boxes of its pixels at any size.

OpenSlide reads the slides of scanners it knows, tifffile OME-TIFF and every other TIFF, libvips plain pictures. Which one is
decided here alone, by what a file is and not by what could open it. A further library is one more class in `Reader`, with the
same members.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.dicom import no_slide, read_header, slide_in
from wsigen.slide.formats import LOADERS, READ, kind_of
from wsigen.slide.info import SlideInfo
from wsigen.slide.openslide_reader import OpenSlideReader, demand_known, vendor_of
from wsigen.slide.picture_reader import PictureReader
from wsigen.slide.resample import apply, taps
from wsigen.slide.resolution import SAME
from wsigen.slide.tiff_reader import TiffReader

RGB = NDArray[np.uint8]

MIN_SIDE_PX = 64
"""A smaller image says nothing about a slide."""

READ_PX = 2**24
"""Pixels of the file read at a time: a larger read is cut in two."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image or slide known by its path; every process opens the file for itself.

    Attributes
    ----------
    path : str
        The file or URL.
    height, width : int
        Size at full resolution (px).
    mpp : float or None
        Micrometres per pixel along x, or None if the file does not say.
    aspect : float
        Height of a pixel by its width (um/um).
    notes : tuple of str
        What the user should be told of the file, a line each (`info.told`).
    scanned : Box or None
        The part that was scanned, where the file says that it is not all (`info.SlideInfo`).
    """

    path: str
    height: int
    width: int
    mpp: float | None
    aspect: float = 1.0
    notes: tuple[str, ...] = ()
    scanned: Box | None = None

    @property
    def levels(self) -> list[tuple[int, int]]:
        """``(height, width)`` of each level in its own pixels, finest first."""
        return list(_reader(self.path).info.levels)

    @property
    def by_region(self) -> bool:
        """Whether a box is read without decoding the whole file."""
        return _reader(self.path).by_region

    def canvas(self, mpp: float) -> tuple[int, int]:
        """``(height, width)`` of the image resampled to square pixels of ``mpp`` um; px count as 1 um if nobody knows."""
        scale = (1.0 if self.mpp is None else self.mpp) / mpp
        return max(1, round(self.height * scale * self.aspect)), max(1, round(self.width * scale))

    def stated(self, mpp: float | None) -> ImageSource:
        """Return the image with an um/px that somebody states: it goes before what the file says, for square pixels."""
        if mpp is None:
            return self
        differs = self.mpp is not None and max(mpp, self.mpp) > min(mpp, self.mpp) * (1 + SAME)
        more = (f"um/px stated as {mpp:g}, the file says {self.mpp:.4g}; what is stated is taken",) if differs else ()
        return replace(self, mpp=float(mpp), aspect=1.0, notes=(*self.notes, *more))

    def read(self, level: int, box: Box) -> RGB:
        """Return RGB uint8 ``[h, w, 3]`` of a box in pixels of a level, on it.

        Raises
        ------
        ImageError
            If the file cannot be read (any more).
        """
        return _reader(self.path).read(level, box)

    def region(self, box: Box, canvas: tuple[float, float], level: int | None = None) -> RGB:
        """Return the pixels of ``box`` on the image resized to ``canvas``.

        A pure function: the value of a pixel does not depend on the box it is read with.

        Parameters
        ----------
        box : Box
            In pixels of the canvas, on it; what its last pixels lack of the image repeats the last ones of it.
        canvas : tuple of float
            ``(height, width)`` the whole image is resized to: area mean down, cubic up. Seldom no whole number of pixels.
        level : int or None
            Level it is made from; None: the coarsest that is still at least as fine as the canvas.

        Returns
        -------
        uint8 ``[box.height, box.width, 3]``, RGB.

        Raises
        ------
        ImageError
            If the file cannot be read (any more).
        """
        out = np.empty((*box.shape, 3), np.uint8)
        if not box.empty:
            reader = _reader(self.path)
            _fill(out, reader, _level_for(reader.info.levels, canvas) if level is None else level, box, canvas)
        return out


def open_image(path: str | os.PathLike[str]) -> ImageSource:
    """Open a slide or any other image.

    A plain image is read once to its end, so that a truncated one is found before a run and not in it.

    Parameters
    ----------
    path : str or path
        A file, the folder of a DICOM slide, or the URL of a TIFF (``https://``, ``s3://``).

    Raises
    ------
    ImageError
        If it is missing, not an image, truncated, smaller than 64 px, or of pixels that are no picture of H&E.
    """
    reader = _found(path)
    info = reader.info
    height, width = info.levels[0]
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(f"{path}: the image is {width} x {height} px, too small; give one of at least {MIN_SIDE_PX} px")
    with refusing(ImageError, f"{path}: not an image, truncated or damaged", "copy the file again"):
        missing = reader.missing_bytes()
    if missing:
        raise ImageError(f"{path}: the slide is truncated, {missing} bytes are missing; copy it again")
    y, x = info.mpp or (None, None)
    return ImageSource(info.path, height, width, x, y / x if x and y else 1.0, info.notes, info.scanned)


def slide_info(path: str | os.PathLike[str]) -> SlideInfo:
    """Say what an image file is and how it is read; of its pixels as few as possible are looked at.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    return _found(path).info


Reader = OpenSlideReader | TiffReader | PictureReader


def _found(path: str | os.PathLike[str]) -> Reader:
    if "://" in str(path):
        return _reader(str(path))
    if Path(path).is_dir():
        path = slide_in(Path(path))
    if not Path(path).is_file():
        raise ImageError(f"{path}: no such image; check the path")
    return _reader(str(Path(path).resolve()))


def _reader(path: str) -> Reader:
    """Open a file, once per process."""
    with refusing(ImageError, f"{path}: not an image, truncated or damaged", "give one that opens elsewhere, or copy it again"):
        return _open(path, 0 if "://" in path else Path(path).stat().st_mtime_ns, os.getpid())


@functools.lru_cache(maxsize=32)
def _open(path: str, stamp: int, process: int) -> Reader:
    """``stamp`` (the time of change) makes a new file under an old name a new entry; so does a fork, which shares positions.

    Training draws from many slides in turn, and opening one takes longer than a crop of it. An open slide holds its
    directory, a plain image its pixels once they were read: datasets copy those of more than 4 Mpx (12 MB).
    """
    if "://" in path:
        return TiffReader.open(path)
    vendor = vendor_of(path)
    if vendor is not None:
        return OpenSlideReader.open(path, vendor)
    kind = kind_of(path)
    if kind == "DICOM":
        raise no_slide(Path(path), read_header(Path(path)))
    demand_known(path, kind)
    if kind == "TIFF":
        return TiffReader.open(path)
    if kind in LOADERS:
        return PictureReader.open(path)
    raise ImageError(f"{path}: {f'{kind} is' if kind else 'not an image, or one of a kind that is'} not read; {READ}")


def let_go() -> None:
    """Close all files that nobody reads, with what was decoded of them; whoever reads again opens them again."""
    _open.cache_clear()


def _level_for(levels: Sequence[tuple[int, int]], canvas: tuple[float, float]) -> int:
    """The coarsest level that is still at least as fine as the canvas, along both axes."""
    (height, width), *_ = levels
    down = max(1.0, min(height / canvas[0], width / canvas[1]))
    return [i for i, (h, _) in enumerate(levels) if height / h <= down * 1.01][-1]


def _fill(out: RGB, reader: Reader, level: int, box: Box, canvas: tuple[float, float]) -> None:
    sizes = reader.info.levels
    (rows, columns) = (
        taps(start, stop, canvas[axis], sizes[level][axis], extent(sizes[0][axis], sizes[level][axis]))
        for axis, (start, stop) in enumerate(((box.y0, box.y1), (box.x0, box.x1)))
    )
    (y0, y1), (x0, x1) = rows.span, columns.span
    if (y1 - y0) * (x1 - x0) <= READ_PX or max(box.shape) == 1:
        out[...] = apply(reader.read(level, Box(y0, x0, y1, x1)), rows, columns)
    elif box.height >= box.width:
        middle = box.height // 2
        _fill(out[:middle], reader, level, Box(box.y0, box.x0, box.y0 + middle, box.x1), canvas)
        _fill(out[middle:], reader, level, Box(box.y0 + middle, box.x0, box.y1, box.x1), canvas)
    else:
        middle = box.width // 2
        _fill(out[:, :middle], reader, level, Box(box.y0, box.x0, box.y1, box.x0 + middle), canvas)
        _fill(out[:, middle:], reader, level, Box(box.y0, box.x0 + middle, box.y1, box.x1), canvas)


def extent(full_px: int, level_px: int) -> float:
    """How many px of a level the whole image would be, the part of one that was cut off or added included.

    A level made by halving 1023 px has 511 or 512 of them, which are 2 px wide each: the image is 511.5 px of that level. Where
    the sizes are of no whole factor, the level is the whole image stretched.
    """
    factor = round(full_px / level_px)
    return full_px / factor if level_px in (full_px // factor, -(-full_px // factor)) else float(level_px)
