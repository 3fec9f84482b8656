"""The one reader of images and slides: a file's size, um/px and levels, and boxes of its pixels at any size.

tiffslide reads tiled TIFF slides by region, libvips every other image. A further library is one more class in `Reader`, with
the same members.
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.resample import apply, taps

RGB = NDArray[np.uint8]

MIN_SIDE_PX = 64
"""A smaller image says nothing about a slide."""

READ_PX = 2**24
"""Pixels of the file read at a time: a larger read is cut in two."""

PLAUSIBLE_MPP = (0.05, 20.0)
"""Resolutions outside these um/px are print resolutions (72 dpi and the like), not those of a microscope."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image or slide known by its path; every process opens the file for itself.

    Attributes
    ----------
    path : str
        The file.
    height, width : int
        Size at full resolution (px).
    mpp : float or None
        Micrometres per pixel, or None if the file does not say.
    """

    path: str
    height: int
    width: int
    mpp: float | None

    @property
    def levels(self) -> list[tuple[int, int]]:
        """``(height, width)`` of each level in its own pixels, finest first."""
        return _reader(self.path).levels

    @property
    def by_region(self) -> bool:
        """Whether a box is read without decoding the whole file."""
        return _reader(self.path).by_region

    def read(self, level: int, box: Box) -> RGB:
        """Return RGB uint8 ``[h, w, 3]`` of a box in pixels of a level, on it.

        Raises
        ------
        ImageError
            If the file cannot be read (any more).
        """
        return _reader(self.path).read(level, box)

    def region(self, box: Box, canvas: tuple[int, int], level: int | None = None) -> RGB:
        """Return the pixels of ``box`` on the image resized to ``canvas``.

        A pure function: the value of a pixel does not depend on the box it is read with.

        Parameters
        ----------
        box : Box
            In pixels of the canvas, on it.
        canvas : tuple of int
            ``(height, width)`` the whole image is resized to: area mean down, cubic up.
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
            _fill(out, reader, _level_for(reader.levels, canvas) if level is None else level, box, canvas)
        return out


def open_image(path: str | os.PathLike[str]) -> ImageSource:
    """Open a slide or any other image.

    A plain image is read once to its end, so that a truncated one is found before a run and not in it.

    Raises
    ------
    ImageError
        If it is missing, not an image, truncated, or smaller than 64 px.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such image; check the path")
    whole = str(path.resolve())
    reader = _reader(whole)
    height, width = reader.levels[0]
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(f"{path}: the image is {width} x {height} px, too small; give one of at least {MIN_SIDE_PX} px")
    with _readable(whole):
        missing = reader.missing_bytes()
    if missing:
        raise ImageError(f"{path}: the slide is truncated, {missing} bytes are missing; copy it again")
    return ImageSource(whole, height, width, reader.mpp)


class TiffSlideReader:
    """A slide through tiffslide."""

    by_region = True

    def __init__(self, path: str, slide: Any) -> None:
        self.path, self.slide = path, slide
        self.levels = [(h, w) for w, h in slide.level_dimensions]
        mpp = slide.properties.get("tiffslide.mpp-x")
        self.mpp = _plausible(float(mpp)) if mpp else None

    @classmethod
    def open(cls, path: str) -> TiffSlideReader | None:
        """Open a tiled TIFF of 8-bit colours, or return None for anything else."""
        with Path(path).open("rb") as file:
            if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return None
        import tiffslide

        try:
            slide = tiffslide.TiffSlide(path)
            page = slide.ts_tifffile.pages[0]
            if page.is_tiled and page.dtype == np.uint8 and page.samplesperpixel in (1, 3) and page.photometric in (1, 2, 6):
                return cls(path, slide)
            slide.close()
        except Exception:
            return None
        return None

    def read(self, level: int, box: Box) -> RGB:
        """Return uint8 RGB of a box."""
        down = self.slide.level_downsamples[level]
        corner = tuple(v if down == 1 else int((v + 0.5) * down) for v in (box.x0, box.y0))
        with _readable(self.path):
            pixels = self.slide.read_region(corner, level, (box.width, box.height), as_array=True)
        return np.broadcast_to(pixels, (*box.shape, 3)) if pixels.shape[2] == 1 else pixels[..., :3]

    def missing_bytes(self) -> int:
        """Return how far the last tile reaches beyond the end of the file."""
        pages = [level.keyframe for series in self.slide.ts_tifffile.series for level in series.levels]
        ends = [offset + size for p in pages for offset, size in zip(p.dataoffsets, p.databytecounts, strict=True)]
        return max(0, max(ends) - Path(self.path).stat().st_size)


class VipsReader:
    """An image of one level through libvips."""

    by_region = False

    def __init__(self, path: str, image: Any, mpp: float | None) -> None:
        self.path, self.image, self.mpp = path, image, mpp
        self.levels = [(image.height, image.width)]

    @classmethod
    def open(cls, path: str) -> VipsReader:
        """Open an image (ImageError if it is none)."""
        import pyvips

        with _readable(path):
            image = pyvips.Image.new_from_file(path, access="random", fail_on="error")
            mpp = _plausible(1000.0 / image.xres) if image.xres > 0 else None
            image = as_rgb(image)
        if image.bands != 3:
            raise ImageError(f"{path}: {image.bands} bands, not a colour image; save it as an RGB PNG or TIFF")
        return cls(path, image, mpp)

    def read(self, level: int, box: Box) -> RGB:
        """Return uint8 RGB of a box."""
        with _readable(self.path):
            return self.image.crop(box.x0, box.y0, box.width, box.height).numpy().reshape(*box.shape, 3)

    def missing_bytes(self) -> int:
        """Decode the image to its end; libvips raises if there is too little."""
        import pyvips

        pyvips.Image.new_from_file(self.path, access="sequential", fail_on="error").avg()
        return 0


Reader = TiffSlideReader | VipsReader


def as_rgb(image: Any) -> Any:
    """Return a libvips image as 8-bit sRGB, transparency on white."""
    image = image.colourspace("srgb")
    return (image.flatten(background=255) if image.hasalpha() else image).cast("uchar")


def _reader(path: str) -> Reader:
    """Open a file, once per process."""
    with _readable(path):
        return _open(path, Path(path).stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _open(path: str, stamp: int) -> Reader:
    """``stamp`` (the time of change) makes a new file under an old name a new entry.

    Training draws from many slides in turn, and opening one takes longer than a crop of it. An open slide holds its
    directory, a plain image its pixels once they were read: datasets copy those of more than 4 Mpx (12 MB).
    """
    return TiffSlideReader.open(path) or VipsReader.open(path)


def _level_for(levels: list[tuple[int, int]], canvas: tuple[int, int]) -> int:
    """The coarsest level that is still at least as fine as the canvas."""
    height = levels[0][0]
    downsample = max(1.0, height / canvas[0])
    return [i for i, (h, _) in enumerate(levels) if height / h <= downsample * 1.01][-1]


def _fill(out: RGB, reader: Reader, level: int, box: Box, canvas: tuple[int, int]) -> None:
    height, width = reader.levels[level]
    rows = taps(box.y0, box.y1, canvas[0], height)
    columns = taps(box.x0, box.x1, canvas[1], width)
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


def _plausible(mpp: float) -> float | None:
    return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None


def _readable(path: str) -> AbstractContextManager[None]:
    """Whatever goes wrong in a library becomes an `ImageError` of one line."""
    advice = "give a slide or image that opens elsewhere, or copy the file again"
    return refusing(ImageError, f"{path}: not an image, truncated or damaged", advice)
