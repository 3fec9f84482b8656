"""Where the pixels of a reference come from: a slide (tiffslide) or any other image (libvips)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsigen.base.errors import ReferenceImageError
from wsigen.base.geometry import Box

PLAUSIBLE_MPP = (0.05, 20.0)
"""Resolutions outside these um/px are print resolutions (72 dpi and the like), not those of a microscope."""


class Source(Protocol):
    """An opened file: its levels' sizes ``(height, width)``, finest first, and boxes of them."""

    sizes: list[tuple[int, int]]
    mpp: float | None

    def level_for(self, downsample: float) -> int:
        """Return the coarsest level that is still at least as fine as asked for."""
        ...

    def read(self, level: int, box: Box) -> np.ndarray:
        """Return uint8 RGB ``[h, w, 3]`` of a box that lies on the level."""
        ...


@dataclass
class ImageSource:
    """An image of one level through libvips: sRGB, transparency on white."""

    path: str
    image: Any
    mpp: float | None

    def __post_init__(self) -> None:
        self.sizes = [(self.image.height, self.image.width)]

    def level_for(self, downsample: float) -> int:
        """Return 0."""
        return 0

    def read(self, level: int, box: Box) -> np.ndarray:
        """Return uint8 RGB of a box."""
        import pyvips

        try:
            part = self.image.crop(box.x0, box.y0, box.width, box.height)
            return part.numpy().reshape(*box.shape, 3)
        except pyvips.Error as e:
            raise _unreadable(self.path, e) from None


@dataclass
class SlideSource:
    """A slide through tiffslide."""

    path: str
    slide: Any

    def __post_init__(self) -> None:
        self.sizes = [(h, w) for w, h in self.slide.level_dimensions]
        mpp = self.slide.properties.get("tiffslide.mpp-x")
        self.mpp = _plausible(float(mpp)) if mpp else None

    def level_for(self, downsample: float) -> int:
        """Return the coarsest level not coarser than ``downsample``."""
        fits = [i for i, (h, _) in enumerate(self.sizes) if self.sizes[0][0] / h <= max(1.0, downsample) * 1.01]
        return fits[-1]

    def read(self, level: int, box: Box) -> np.ndarray:
        """Return uint8 RGB of a box."""
        down = self.slide.level_downsamples[level]
        corner = tuple(v if down == 1 else int((v + 0.5) * down) for v in (box.x0, box.y0))
        try:
            pixels = self.slide.read_region(corner, level, (box.width, box.height), as_array=True)
        except Exception as e:
            raise _unreadable(self.path, e) from None
        return np.broadcast_to(pixels, (*box.shape, 3)) if pixels.shape[2] == 1 else pixels[..., :3]


def open_source(path: str) -> Source:
    """Open a file, once per process.

    Raises
    ------
    ReferenceImageError
        If it is missing or no image.
    """
    try:
        return _open(path, Path(path).stat().st_mtime_ns)
    except OSError as e:
        raise _unreadable(path, e) from None


def check_complete(path: str, source: Source) -> None:
    """Find a truncated file before it is used.

    Raises
    ------
    ReferenceImageError
        If bytes are missing.
    """
    import pyvips

    try:
        if isinstance(source, ImageSource):
            pyvips.Image.new_from_file(path, access="sequential", fail_on="error").avg()
            return
        end = max(o + n for o, n in _segments(path))
    except Exception as e:
        raise _unreadable(path, e) from None
    if end > Path(path).stat().st_size:
        missing = end - Path(path).stat().st_size
        raise ReferenceImageError(f"{path}: the slide is truncated, {missing} bytes are missing; copy it again")


def _segments(path: str) -> list[tuple[int, int]]:
    """Return offset and length of every tile or strip of a TIFF."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        pages = [level.keyframe for series in tiff.series for level in series.levels]
        return [pair for p in pages for pair in zip(p.dataoffsets, p.databytecounts, strict=True)]


@functools.lru_cache(maxsize=32)
def _open(path: str, stamp: int) -> Source:
    """``stamp`` (the time of change) makes a new file under an old name a new entry.

    Training draws from many slides in turn, and opening one takes longer than a crop of it. An open slide holds its
    directory, a plain image its pixels once they were read: datasets copy those of more than 4 Mpx (12 MB).
    """
    return _open_slide(path) or _open_image(path)


def _open_slide(path: str) -> SlideSource | None:
    """Open a tiled TIFF of 8-bit colours, or return None for anything else."""
    with Path(path).open("rb") as f:
        if f.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
    import tiffslide

    try:
        slide = tiffslide.TiffSlide(path)
        page = slide.ts_tifffile.pages[0]
        if page.is_tiled and page.dtype == np.uint8 and page.samplesperpixel in (1, 3) and page.photometric in (1, 2, 6):
            return SlideSource(path, slide)
        slide.close()
    except Exception:
        return None
    return None


def _open_image(path: str) -> ImageSource:
    import pyvips

    try:
        image = pyvips.Image.new_from_file(path, access="random", fail_on="error")
        mpp = _plausible(1000.0 / image.xres) if image.xres > 0 else None
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=255)
        image = image.cast("uchar")
        if image.bands != 3:
            raise ReferenceImageError(f"{path}: {image.bands} bands, not a colour image; save it as an RGB PNG or TIFF")
        return ImageSource(path, image, mpp)
    except pyvips.Error as e:
        raise _unreadable(path, e) from None


def _plausible(mpp: float) -> float | None:
    return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None


def _unreadable(path: str, error: Exception) -> ReferenceImageError:
    detail = (getattr(error, "detail", "") or str(error) or type(error).__name__).strip().splitlines()[0]
    detail = detail.replace(f'"{path}"', "it").replace(path, "it")  # libvips names the file, too
    return ReferenceImageError(
        f"{path}: not an image, truncated or damaged ({detail}); give a slide or image that opens elsewhere, "
        "or copy the file again"
    )
