"""OME-TIFF and any TIFF that is not of a scanner OpenSlide knows, by region, from a file or a URL, through tifffile.

tifffile decodes tiles and strips; this reads those that a box needs. Missing ones are white.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.formats import check_size
from wsigen.slide.info import SlideInfo
from wsigen.slide.pyramid import MAX_SIDE
from wsigen.slide.resolution import decide, from_ome, from_tags, from_text
from wsigen.slide.samples import bits_for, from_ycbcr, over, to_8_bit
from wsigen.slide.streams import demand_size
from wsigen.slide.tiff_image import TiffImage, choose_image

MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""Values of the tag PhotometricInterpretation that are read."""

_CODECS_OF_RGB = {6, 7, 34892, 33007}
"""JPEG in its variants: what decodes it converts YCbCr."""

_UNKNOWN, _MULTIPLIED, _ALPHA = 0, 1, 2
_EXTRA = ((_UNKNOWN,), (_MULTIPLIED,), (_ALPHA,))
"""Values of the tag ExtraSamples: a sample of no meaning, alpha that colours were multiplied by, alpha."""

_APERIO_YCBCR = 33003
"""Aperio's JPEG 2000 of YCbCr, though the tags say RGB."""

CACHE_BYTES = 64 * 2**20
"""Decoded tiles and strips of all open files that are kept for the next box; one of any size."""

SAMPLED_SEGMENTS = 16
"""Tiles or strips looked at for the range of values."""

DAMAGED = "copy the file again"


class _Segments:
    """Decoded tiles and strips of all files, those used last.

    Memory bound: `CACHE_BYTES` for all of them together, or a single one; training has 32 slides open at a time.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int, int], NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: tuple[int, int, int]) -> NDArray[np.generic] | None:
        """Return one that is kept."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def keep(self, name: tuple[int, int, int], pixels: NDArray[np.generic]) -> None:
        """Keep one, and let go of those that were not used for longest."""
        with self._lock:
            self._kept[name] = pixels
            while len(self._kept) > 1 and sum(s.nbytes for s in self._kept.values()) > CACHE_BYTES:
                self._kept.popitem(last=False)


_SEGMENTS = _Segments()
_NUMBERS = count()


class TiffReader:
    """A TIFF, one image of it."""

    def __init__(self, path: str, tif: Any, image: TiffImage) -> None:
        self.path, self.tif, self.image = path, tif, image
        weakref.finalize(self, tif.close)
        self._number = next(_NUMBERS)  # of this reader among the kept segments
        page = image.levels[0].keyframe
        self.by_region = bool(page.is_tiled)
        self._bits, self._alpha_bits, notes = self._depth()
        if page.photometric in (MINISWHITE, MINISBLACK) and len(image.planes) == 1:
            notes.append("a grey picture, without the colours of a stain")
        if tuple(page.extrasamples) == (_UNKNOWN,):
            notes.append("a further sample of each pixel, of which nothing says what it is, is left out")
        if turned := _tag(page, "Orientation", 1) - 1:
            notes.append(f"orientation {turned + 1} in its tags: pixels are read as stored, as QuPath and OpenSlide show them")
        resolution = decide(_statements(page, image))
        kind = "OME-TIFF" if tif.is_ome else "TIFF"
        self.info = SlideInfo(
            path,
            f"tifffile, {kind}",
            tuple((level.keyframe.imagelength, level.keyframe.imagewidth) for level in image.levels),
            resolution.mpp,
            resolution.source,
            self._planes(page),
            image.title,
            tuple(image.others),
            (*image.notes, *resolution.notes, *notes),
        )

    @classmethod
    def open(cls, path: str) -> TiffReader:
        """Open a TIFF by its path or URL.

        Raises
        ------
        ImageError
            If it is damaged, its tiles are too large, or its pixels are no picture of H&E.
        """
        import fsspec
        import tifffile

        with refusing(ImageError, f"{path}: not an image, truncated or damaged", DAMAGED):
            file = fsspec.open(path, "rb").open() if "://" in path else path
            tif = tifffile.TiffFile(file, _multifile=False)  # OME-XML may name any file as one of the same slide
            try:
                tif.filehandle.set_lock(True)
                _leave_to_openslide(path, tif)
                image = choose_image(tif, path)
                for level in image.levels:
                    _check(path, level.keyframe)
                return cls(path, tif, image)
            except BaseException:
                tif.close()
                raise

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return uint8 RGB ``[h, w, 3]`` of a box; what was not scanned is white."""
        series = self.image.levels[level]
        pages = [series[i] for i in self.image.planes]
        with refusing(ImageError, f"{self.path}: truncated or damaged", DAMAGED):
            parts = [self._plane(page, box) for page in pages]
        colours = np.concatenate([samples for samples, _ in parts], axis=-1)
        missing = np.logical_or.reduce([holes for _, holes in parts])
        rgb = self._as_rgb(series.keyframe, colours)
        if missing.any():
            rgb = np.where(missing[..., None], np.uint8(255), rgb)
        return rgb

    def missing_bytes(self) -> int:
        """Return how far the last tile or strip reaches beyond the end of the file."""
        return _beyond(self.tif, [page for level in self.image.levels for page in level])

    def _plane(self, page: Any, box: Box) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Samples of a box of a page ``[h, w, samples]``, and where none are stored."""
        key = page.keyframe
        rows, columns = _unit(key)
        across, down = -(-key.imagewidth // columns), -(-key.imagelength // rows)
        samples = key.samplesperpixel
        separate = samples if key.planarconfig == 2 else 1
        out = np.zeros((*box.shape, samples), key.dtype)
        missing = np.zeros(box.shape, bool)
        for i in range(box.y0 // rows, -(-box.y1 // rows)):
            for j in range(box.x0 // columns, -(-box.x1 // columns)):
                cell = Box(i * rows, j * columns, min((i + 1) * rows, key.imagelength), min((j + 1) * columns, key.imagewidth))
                part = cell.intersect(box)
                here, there = part.relative_to(box).slices, part.relative_to(cell).slices
                for s in range(separate):
                    pixels = self.segment(page, (s * down + i) * across + j)
                    if pixels is None:
                        missing[here] = True
                    elif separate == 1:
                        out[here] = pixels[there]
                    else:
                        out[(*here, s)] = pixels[(*there, 0)]
        return out, missing

    def stored(self, page: Any, index: int) -> bytes:
        """Return a tile or strip as it lies in the file; empty if it is not stored."""
        size = page.databytecounts[index] if index < len(page.databytecounts) else 0
        if not size:
            return b""
        handle = self.tif.filehandle
        with handle.lock:
            handle.seek(page.dataoffsets[index])
            return bytes(handle.read(size))

    def segment(self, page: Any, index: int) -> NDArray[np.generic] | None:
        """Decode a tile or strip ``[h, w, samples]``; None if it is not stored."""
        name = (self._number, page.offset, index)
        if (kept := _SEGMENTS.get(name)) is not None:
            return kept
        data = self.stored(page, index)
        if not data:
            return None
        key = page.keyframe
        demand_size(int(key.compression), data, _unit(key))
        tables = {"jpegtables": key.jpegtables} if key.jpegtables is not None else {}
        decoded, _, _ = key.decode(data, index, **tables)
        if decoded is None:
            return None
        _SEGMENTS.keep(name, decoded[0])
        return decoded[0]

    def _as_rgb(self, page: Any, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
        if page.photometric == PALETTE:
            table = np.moveaxis(np.asarray(page.colormap), 0, -1)
            return to_8_bit(table, 16)[samples[..., 0].astype(np.int64)]
        pixels = to_8_bit(samples, self._bits)
        if self._alpha_bits != self._bits:
            pixels[..., -1] = to_8_bit(samples[..., -1], self._alpha_bits)
        if page.photometric == MINISWHITE:
            pixels = 255 - pixels
        grey = page.photometric in (MINISWHITE, MINISBLACK) and len(self.image.planes) == 1
        colours = np.broadcast_to(pixels[..., :1], (*pixels.shape[:2], 3)) if grey else pixels[..., :3]
        if _is_ycbcr(page):
            colours = from_ycbcr(colours)
        if pixels.shape[-1] in (2, 4) and page.extrasamples[0] != _UNKNOWN:
            return over(colours, pixels[..., -1], 255, multiplied=page.extrasamples[0] == _MULTIPLIED)
        return np.ascontiguousarray(colours)

    def _depth(self) -> tuple[int, int, list[str]]:
        """Bits that the samples of colour use, and alpha (of which many programs write all 16), and a note if more than 8."""
        page = self.image.levels[0].keyframe
        if page.dtype != np.uint16 or page.photometric == PALETTE:
            return 8, 8, []
        declared = self.image.pixels.get("SignificantBits", "")
        most = _tag(page, "MaxSampleValue", 65535)
        known = int(declared) if declared.isdigit() else page.bitspersample
        known = min(known, int(most).bit_length()) if most > 255 else known
        colours, extra = self._largest(len(page.extrasamples))
        bits, note = bits_for(colours, known if known < 16 else None)
        return bits, bits_for(extra, bits)[0], [note]

    def _largest(self, extra: int) -> tuple[int, int]:
        """The largest values in some tiles of the coarsest level: of colours, and of the last ``extra`` samples."""
        largest = np.zeros(self.image.levels[-1].keyframe.samplesperpixel, np.int64)
        level = self.image.levels[-1]
        for page in (level[i] for i in self.image.planes):
            stored = len(page.databytecounts)
            planes = len(largest) if page.keyframe.planarconfig == 2 else 1  # one after the other
            for index in sorted(set(np.linspace(0, stored - 1, min(stored, SAMPLED_SEGMENTS)).astype(int).tolist())):
                pixels = self.segment(page, index)
                if pixels is not None:
                    of = largest if planes == 1 else largest[index * planes // stored :][:1]
                    np.maximum(of, pixels.max(axis=(0, 1)).astype(np.int64), out=of)
        colours = len(largest) - extra
        return int(largest[:colours].max()), int(largest[colours:].max(initial=0))

    def _planes(self, page: Any) -> str:
        kind = "RGB" if page.photometric in (RGB, YCBCR) or len(self.image.planes) == 3 else page.photometric.name.lower()
        depth = f"{self._bits} bit" if page.dtype == np.uint8 else f"{self._bits} of {page.bitspersample} bit"
        form = f"tiles of {page.tilewidth} x {page.tilelength}" if page.is_tiled else f"strips of {page.rowsperstrip} rows"
        return f"{depth} {kind}, {'separate planes, ' if page.planarconfig == 2 else ''}{form}, {page.compression.name.lower()}"


def beyond_end(path: str) -> int:
    """Return how far the tiles of any TIFF reach beyond the end of its file."""
    import tifffile

    with refusing(ImageError, f"{path}: truncated or damaged", DAMAGED), tifffile.TiffFile(path) as tif:
        return _beyond(tif, list(tif.pages))


def _beyond(tif: Any, pages: list[Any]) -> int:
    stored = [page for page in pages if page is not None]
    ends = [at + n for page in stored for at, n in zip(page.dataoffsets, page.databytecounts, strict=True) if n]
    return max(0, max(ends, default=0) - tif.filehandle.size)


def _leave_to_openslide(path: str, tif: Any) -> None:
    """Refuse a slide of a scanner: its tiles may overlap, its colours be coded in a way of its own."""
    url = "://" in path
    kinds = ("ndpi", "scn", "bif", *(("svs", "philips") if url else ()))
    kind = next((kind for kind in kinds if getattr(tif, f"is_{kind}")), None)
    if kind is not None:
        what = "is read from a local file only; copy it here" if url else "OpenSlide does not know it; export it as OME-TIFF"
        raise ImageError(f"{path}: a slide of a scanner ({kind.upper()}): {what}")


def _check(path: str, page: Any) -> None:
    """Refuse pixels that are no 8- or 16-bit colours or grey, and tiles too large to decode."""
    name = getattr(page.photometric, "name", page.photometric)
    if page.photometric not in (MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR):
        raise ImageError(f"{path}: pixels of the kind {name}; save it as RGB")
    if page.dtype is None or page.dtype not in (np.uint8, np.uint16, bool):
        raise ImageError(f"{path}: samples of the type {page.dtype}, not of 8 or 16 bits; save it as 8-bit RGB")
    colours = 3 if page.photometric in (RGB, YCBCR) else 1
    samples = page.samplesperpixel
    if samples != colours and (samples != colours + 1 or tuple(page.extrasamples) not in _EXTRA):
        raise ImageError(f"{path}: {samples} samples a pixel, no RGB image; H&E is read from RGB: export it as such")
    if max(page.imagelength, page.imagewidth) > MAX_SIDE:
        raise ImageError(f"{path}: {page.imagewidth} x {page.imagelength} px; a slide has at most {MAX_SIDE:,} px a side")
    high, wide = _unit(page)
    needed = -(-page.imagelength // high) * -(-page.imagewidth // wide) * (samples if page.planarconfig == 2 else 1)
    if len(page.dataoffsets) < needed:
        raise ImageError(f"{path}: lists {len(page.dataoffsets)} of the {needed} tiles that it needs; {DAMAGED}")
    check_size(path, _unit(page), page.samplesperpixel * page.dtype.itemsize, at_once=True)


def _unit(page: Any) -> tuple[int, int]:
    """``(height, width)`` of a tile or strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _is_ycbcr(page: Any) -> bool:
    """Whether decoded samples are YCbCr still."""
    return page.compression == _APERIO_YCBCR or (page.photometric == YCBCR and page.compression not in _CODECS_OF_RGB)


def _statements(page: Any, image: TiffImage) -> list[Any]:
    described = page.description or ""
    sides = [_tag(page, f"{axis}Resolution", 0) for axis in "XY"]
    return [from_ome(image.pixels), from_text(described), from_tags(sides, _tag(page, "ResolutionUnit", 2), described)]


def stated_mpp(path: str) -> float | None:
    """um/px that a TIFF of any kind states, a label image too; None if it does not, or is none that can be read."""
    import tifffile

    with suppress(Exception), tifffile.TiffFile(path, _multifile=False) as tif:  # what is wrong with it, its readers say
        image = choose_image(tif, path)
        found = decide(_statements(image.levels[0].keyframe, image)).mpp
        return None if found is None else found[1]
    return None


def _tag(page: Any, name: str, otherwise: Any) -> Any:
    """The value of a tag; the first of several, a fraction as it is."""
    tag = page.tags.get(name)
    value = otherwise if tag is None else tag.value
    return value[0] if isinstance(value, tuple) and not name.endswith("Resolution") else value
