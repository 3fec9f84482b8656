"""Slides of scanners through OpenSlide: SVS, NDPI, MRXS, SCN, VMS, BIF, Philips TIFF, DICOM and whatever else it knows."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.formats import check_size, kind_of
from wsigen.slide.info import SlideInfo
from wsigen.slide.resolution import decide, from_openslide
from wsigen.slide.samples import over

_BESIDE = "bring the files it names beside it"
_AGAIN = "copy it again, or export it as OME-TIFF"
OWN_FORMATS = {
    ".mrxs": "bring the folder of the same name beside it, with Slidedat.ini and its data",
    ".vms": _BESIDE,
    ".vmu": _BESIDE,
    ".ndpi": _AGAIN,
    ".svslide": _AGAIN,
    ".dcm": "bring the other files of its series beside it",
    ".czi": _AGAIN,
    ".svs": _AGAIN,
    ".scn": _AGAIN,
    ".bif": _AGAIN,
    ".vsi": "export it as OME-TIFF, from QuPath or OlyVIA",
}
"""Suffixes that say a format of a scanner: such a file is never opened as anything else (``X.mrxs`` itself is a small JPEG,
``X.vsi`` a TIFF of label and overview)."""

TIFF_FORMATS = (".svs", ".scn", ".bif")
"""Of these what is any other TIFF, written by a converter, is read as one."""

CACHE_BYTES = 64 * 2**20
"""Decoded tiles of all open slides that are kept for the next box."""

BLOCK_PX = 512
"""Side of the blocks that levels of a fractional downsample are read in.

OpenSlide takes the corner of a region in px of level 0. On such a level most pixels lie between those, and OpenSlide
interpolates: by half a pixel of level 0 at most, but differently for another corner. With fixed corners a pixel has one value.
"""


def vendor_of(path: str) -> str | None:
    """Return OpenSlide's word for the format of a file, None if it is not of a scanner it knows."""
    import openslide

    with refusing(ImageError, f"{path}: cannot be looked at", "check the file"):
        vendor = openslide.OpenSlide.detect_format(path)
    return None if vendor in (None, "generic-tiff", "synthetic") else vendor


def demand_known(path: str, kind: str) -> None:
    """Refuse a file whose name says a scanner's format that OpenSlide does not find in it.

    Parameters
    ----------
    kind : str
        What it is by its first bytes: a TIFF may be named like a slide that is one, too.

    Raises
    ------
    ImageError
        Saying what may be missing.
    """
    suffix = Path(path).suffix.casefold()
    if suffix in OWN_FORMATS and not (suffix in TIFF_FORMATS and kind == "TIFF"):
        raise ImageError(f"{path}: OpenSlide finds no {suffix[1:]} slide in it; {OWN_FORMATS[suffix]}")


class OpenSlideReader:
    """A slide of a scanner."""

    by_region = True

    def __init__(self, path: str, slide: Any, info: SlideInfo) -> None:
        self.path, self.slide, self.info = path, slide, info
        self._downsamples = slide.level_downsamples
        colour = slide.properties.get("openslide.background-color", "FFFFFF")
        self._glass = np.frombuffer(bytes.fromhex(colour), np.uint8)

    @classmethod
    def open(cls, path: str, vendor: str) -> OpenSlideReader:
        """Open a slide of a known vendor.

        Raises
        ------
        ImageError
            If OpenSlide refuses it: it is then not opened as something else.
        """
        import openslide

        with refusing(ImageError, f"{path}: OpenSlide cannot open this {vendor} slide", "copy it again, with all its files"):
            slide = _open(path)
        properties = dict(slide.properties)
        for level in range(slide.level_count):
            tile = [int(properties.get(f"openslide.level[{level}].tile-{side}", 0)) for side in ("height", "width")]
            check_size(path, (tile[0], tile[1]), 4, at_once=True)
        power = properties.get("openslide.objective-power") if vendor == "aperio" else None  # others use camera adapters
        resolution = decide(from_openslide(properties), float(power) if power else None)
        scanned = _scanned(properties, slide.dimensions)
        info = SlideInfo(
            path,
            f"OpenSlide {openslide.__library_version__}, {vendor}",
            tuple((h, w) for w, h in slide.level_dimensions),
            resolution.mpp,
            resolution.source,
            "8 bit RGB",
            others=tuple(_associated(properties, slide.associated_images)),
            notes=(*resolution.notes, *_told(scanned)),
            scanned=scanned,
        )
        return cls(path, slide, info)

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return uint8 RGB ``[h, w, 3]`` of a box; what was not scanned is glass."""
        down = self._downsamples[level]
        if float(down).is_integer():
            return self._region(level, box, int(down))
        out = np.empty((*box.shape, 3), np.uint8)
        height, width = self.info.levels[level]
        for y in range(box.y0 // BLOCK_PX * BLOCK_PX, box.y1, BLOCK_PX):
            for x in range(box.x0 // BLOCK_PX * BLOCK_PX, box.x1, BLOCK_PX):
                block = Box(y, x, min(y + BLOCK_PX, height), min(x + BLOCK_PX, width))
                part = block.intersect(box)
                out[part.relative_to(box).slices] = self._region(level, block, down)[part.relative_to(block).slices]
        return out

    def _region(self, level: int, box: Box, down: float) -> NDArray[np.uint8]:
        corner = round(box.x0 * down), round(box.y0 * down)
        with refusing(ImageError, f"{self.path}: truncated or damaged", "copy the file again"):
            image = self._read(corner, level, (box.width, box.height))
        pixels = np.asarray(image)
        return over(pixels[..., :3], pixels[..., 3], self._glass)

    def _read(self, *region: Any) -> Any:
        """Read a region; a handle of OpenSlide that failed once fails for ever, be it at another place or in another thread."""
        import openslide

        try:
            return self.slide.read_region(*region)
        except openslide.OpenSlideError:
            self.slide = _open(self.path)
            return self.slide.read_region(*region)

    def missing_bytes(self) -> int:
        """Return how far the last tile of a TIFF reaches beyond the end of the file."""
        from wsigen.slide.tiff_reader import beyond_end

        return beyond_end(self.path) if kind_of(self.path) == "TIFF" else 0


def _open(path: str) -> Any:
    import openslide

    slide = openslide.OpenSlide(path)
    slide.set_cache(_cache())
    return slide


@functools.cache
def _cache() -> Any:
    """The decoded tiles that OpenSlide keeps, of all slides together: by default it keeps 32 MB of each."""
    import openslide

    return openslide.OpenSlideCache(CACHE_BYTES)


def _associated(properties: dict[str, str], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        width, height = (properties.get(f"openslide.associated.{name}.{side}", "?") for side in ("width", "height"))
        yield f"{name} {width} x {height}"


def _scanned(properties: dict[str, str], size: tuple[int, int]) -> Box | None:
    """The part that was scanned, None where it is all or nobody says."""
    keys = [properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
    if None in keys:
        return None
    x, y, width, height = (int(str(k)) for k in keys)
    return None if (x, y, width, height) == (0, 0, *size) else Box(y, x, y + height, x + width)


def _told(scanned: Box | None) -> list[str]:
    """Say that only a part was scanned: QuPath counts px from its corner."""
    if scanned is None:
        return []
    size, corner = f"{scanned.width} x {scanned.height} px", f"{scanned.x0}, {scanned.y0}"
    return [f"scanned: {size} at {corner}; px are those of the whole, QuPath's begin there (unless --no-crop)"]
