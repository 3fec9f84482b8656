"""Other pixels in a slide's file: only tiles that they touch are written anew, everything else stays byte for byte.

The file is copied, new tiles of all levels are put at its end, and the entries that point to tiles are written over, so the
time depends on the pixels and, but for copying, not on the slide. The old tiles are written over with zeros: what somebody
removes must not stay in the file.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.errors import ConfigError, ImageError, OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.formats import kind_of
from wsigen.slide.jpeg_blocks import paste
from wsigen.slide.jpeg_stream import JpegStream
from wsigen.slide.openslide_reader import vendor_of
from wsigen.slide.patched_pixels import RGB, Mask, Patch, box_at, patched
from wsigen.slide.streams import demand_size
from wsigen.slide.tiff_patch import TiffPatch
from wsigen.slide.tiff_reader import DAMAGED, YCBCR, TiffReader
from wsigen.slide.tiff_reader import RGB as RGB_TAG
from wsigen.slide.undo_file import restore, undo_writer
from wsigen.storage.files import atomic_path, copy_file, sha256

__all__ = ["LevelChange", "OtherFormatError", "Patch", "Spliced", "demand_replaceable", "replace_pixels", "restore"]

JPEG = 7
LOSSLESS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate"}
"""Compressions that give back what was put in; the others, but JPEG, are refused."""

MOST_JPEG_PX, MOST_JPEG_BYTES = 2**22, 2**22
"""Of a JPEG tile: 2,048 px squared, and 4 MiB as it is stored. To take one apart takes up to 300 bytes for each of them."""

_VIPS = "vips tiffsave IN OUT.tif --tile --pyramid --bigtiff --compression jpeg --Q 90"
_CONVERT = f"give the new slide a name in .ome.tiff, and all of it is written anew, or convert it first: {_VIPS}"
_VENDORS = {None, "aperio"}


class OtherFormatError(ImageError):
    """A slide in which pixels cannot be replaced; `wsigen.slide.rewrite.write_ome_tiff` makes one in which they can."""


@dataclass(frozen=True, slots=True)
class LevelChange:
    """What changed in a level.

    Attributes
    ----------
    tiles, of : int
        Tiles that were encoded anew, of how many.
    pixels : int
        Pixels that were replaced: those of the mask, at coarser levels all that a pixel of the mask is part of.
    beside : int
        Other pixels that were encoded anew, because they lie in a block of a JPEG (mostly 16 x 16 px) that the mask touches.
        Their colours change by a few grey levels. 0 of lossless tiles.
    """

    tiles: int
    of: int
    pixels: int
    beside: int


@dataclass(frozen=True, slots=True)
class Spliced:
    """A slide with other pixels.

    Attributes
    ----------
    path : Path
        The new file.
    parent_sha256 : str
        Of the file it was made from.
    levels : tuple of LevelChange
        Finest first.
    notes : tuple of str
        What a user should be told, a line each.
    """

    path: Path
    parent_sha256: str
    levels: tuple[LevelChange, ...]
    notes: tuple[str, ...]


def replace_pixels(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    patches: Sequence[Patch],
    *,
    description: str | None = None,
    undo: str | os.PathLike[str] | None = None,
    beside: Mapping[str, Path] | None = None,
) -> Spliced:
    """Write a slide that differs from another one in some pixels.

    Parameters
    ----------
    source : path
        A tiled TIFF: OME-TIFF, SVS, or a plain pyramid, of 8-bit RGB as JPEG, deflate, LZW or uncompressed.
    output : path
        The new slide; a file that lies there is replaced, at once and only if all went well.
    patches : sequence of Patch
        They may overlap; the last one counts.
    description : str or None
        The new ImageDescription (OME-XML) of the first page.
    undo : path or None
        A file to keep what was replaced in, for `restore`.
    beside : mapping of str to path
        Files beside the slide that are kept in it, too.

    Raises
    ------
    OtherFormatError
        If the source is of another format.
    ImageError
        If it is damaged.
    ConfigError
        If a patch reaches beyond the slide, or output or undo is the source.
    OutputError
        If the output cannot be written.

    Notes
    -----
    **Memory bound.** The patches, and one tile with what lies below it (at most 2^24 px of level 0 at a time); of a JPEG tile
    its coefficients, too (`MOST_JPEG_PX`).
    """
    source, output = Path(source), Path(output)
    undo = None if undo is None else Path(undo)
    reader = _open(source)
    _demand_paths(source, output, undo)
    canvas = Box(0, 0, *reader.info.levels[0])
    for patch in patches:
        if patch.box.intersect(canvas) != patch.box:
            raise ConfigError(
                f"{source}: pixels for {patch.box} in a slide of {canvas.width} x {canvas.height} px; cut them at its edge"
            )
    if description is not None and vendor_of(str(source)) == "aperio" and not description.startswith("Aperio"):
        raise ConfigError(
            f"{source}: a description of an SVS begins with 'Aperio', or no program knows it any more; add to the old one"
        )
    with refusing(OutputError, output, "free disk space, or choose another place"), ExitStack() as files:
        scratch = files.enter_context(atomic_path(output))
        undo_beside = None if undo is None else files.enter_context(atomic_path(undo))  # in place before the slide is
        copy_file(source, scratch)
        parent = sha256(scratch)
        with (
            undo_writer(undo_beside, scratch.stat().st_size, parent, beside) as kept,
            scratch.open("r+b") as file,
            refusing(ImageError, f"{source}: damaged", DAMAGED, passing=(OSError, MemoryError)),
        ):
            tiff = TiffPatch(file, reader.tif, kept.keep)
            levels = [_replace(reader, tiff, level, patches) for level in range(len(reader.info.levels))]
            shared = tiff.finish()
            if description is not None:
                tiff.describe(reader.tif.pages.first, description.encode())
    return Spliced(output, parent, tuple(levels), _notes(reader, levels, shared))


def demand_replaceable(source: str | os.PathLike[str]) -> None:
    """Refuse a slide whose pixels cannot be replaced (ImageError): known before anything is made for it."""
    _open(Path(source))


def _demand_paths(source: Path, output: Path, undo: Path | None) -> None:
    for path in (output, *([] if undo is None else [undo])):
        if path.exists() and path.samefile(source):
            raise ConfigError(f"{path}: is the slide itself, which is never changed; give another name")
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give the name of a file")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: no such folder; make it")
    if undo is not None and undo.resolve() == output.resolve():
        raise ConfigError(f"{undo}: is the output itself; give another name for what undoes it")


def _open(source: Path) -> TiffReader:
    if not source.exists():
        raise ImageError(f"{source}: no such image; check the path")
    vendor = "a folder" if source.is_dir() else vendor_of(str(source))
    if vendor not in _VENDORS or kind_of(source) != "TIFF":
        what = vendor or kind_of(source) or "this"
        raise OtherFormatError(
            f"{source}: pixels are replaced in OME-TIFF, SVS and plain tiled TIFF, not in {what}; {_CONVERT}"
        )
    reader = TiffReader.open(str(source))
    problem = next((p for level in reader.image.levels if (p := _unfit(reader, level.keyframe))), None)
    if len(reader.image.planes) != 1 or len(reader.image.levels[0]) != 1:
        problem = "several planes"
    if problem:
        raise OtherFormatError(f"{source}: {problem}, in which pixels cannot be replaced; {_CONVERT}")
    with refusing(ImageError, f"{source}: truncated or damaged", DAMAGED):
        missing = reader.missing_bytes()
    if missing:
        raise ImageError(f"{source}: the slide is truncated, {missing} bytes are missing; {DAMAGED}")
    return reader


def _unfit(reader: TiffReader, page: Any) -> str:
    """What of a page keeps its tiles from being replaced; empty if nothing does."""
    compression = int(page.compression)
    predictor, side = int(page.predictor), (page.tilelength, page.tilewidth)
    colours = (RGB_TAG, YCBCR) if compression == JPEG else (RGB_TAG,)
    checks = [
        (not page.is_tiled, "strips instead of tiles"),
        (page.dtype != np.uint8 or page.samplesperpixel != 3 or page.planarconfig != 1, "pixels that are no 8-bit RGB triples"),
        (int(page.photometric) not in colours, f"pixels of the kind {_called(page.photometric)}"),
        (compression != JPEG and compression not in LOSSLESS, f"tiles compressed as {_called(page.compression)}"),
        (compression != JPEG and predictor not in (1, 2), f"the predictor {predictor}"),
        (page.fillorder != 1, "bits in reversed order"),
        (compression == JPEG and math.prod(side) > MOST_JPEG_PX, f"JPEG tiles of {side[1]} x {side[0]} px"),
    ]  # fmt: skip
    problem = next((what for bad, what in checks if bad), "")
    if not problem and compression == JPEG:
        try:
            _jpeg(reader, page, _any_stored(page))
        except ValueError as error:
            return str(error)
    return problem


def _called(value: Any) -> str:
    """The name of a tag's value, as tifffile knows it, or its number."""
    return str(getattr(value, "name", value))


def _replace(reader: TiffReader, tiff: TiffPatch, level: int, patches: Sequence[Patch]) -> LevelChange:
    page = reader.image.levels[level].keyframe
    side = (page.tilelength, page.tilewidth)
    across = -(-page.imagewidth // side[1])
    of = across * -(-page.imagelength // side[0])
    count = pixels = beside = 0
    for (row, column), here in _touched(reader, level, side, patches):
        box = Box(row * side[0], column * side[1], (row + 1) * side[0], (column + 1) * side[1])
        there = box.intersect(Box(0, 0, page.imagelength, page.imagewidth))
        new, mask = patched(reader, level, there, here)
        if not mask.any():
            continue
        edge = ((0, side[0] - there.height), (0, side[1] - there.width))
        with refusing(ImageError, f"{reader.path}: tile ({row}, {column}) of level {level}", DAMAGED):
            number = row * across + column
            data, again = _encode(
                reader, page, number, np.pad(new, (*edge, (0, 0)), mode="edge"), np.pad(mask, edge, mode="edge")
            )
        tiff.put_tile(page, number, data)
        count, pixels = count + 1, pixels + int(mask.sum())
        beside += int((again[: there.height, : there.width] & ~mask).sum())
    return LevelChange(count, of, pixels, beside)


def _touched(
    reader: TiffReader, level: int, side: tuple[int, int], patches: Sequence[Patch]
) -> Iterator[tuple[tuple[int, int], list[Patch]]]:
    """Tiles ``(row, column)`` of a level that patches' boxes lie on, each with those patches, in their order."""
    by_row: defaultdict[int, list[tuple[Box, Patch]]] = defaultdict(list)
    for patch in patches:
        box = box_at(reader, level, patch.box)
        if not box.empty:
            for row in range(box.y0 // side[0], -(-box.y1 // side[0])):
                by_row[row].append((box, patch))
    for row in sorted(by_row):
        by_column: defaultdict[int, list[Patch]] = defaultdict(list)
        for box, patch in by_row[row]:
            for column in range(box.x0 // side[1], -(-box.x1 // side[1])):
                by_column[column].append(patch)
        for column in sorted(by_column):
            yield (row, column), by_column[column]


def _encode(reader: TiffReader, page: Any, number: int, new: RGB, mask: Mask) -> tuple[bytes, Mask]:
    """A tile with new pixels, and which of its pixels were encoded anew."""
    if int(page.compression) == JPEG:
        return _encode_jpeg(reader, page, number, new, mask)
    old = reader.segment(page, number)
    full = (
        np.full_like(new, 255)
        if old is None
        else np.pad(old, [(0, n - m) for n, m in zip(new.shape, old.shape, strict=True)], mode="edge")
    )
    return _encode_lossless(page, np.where(mask[..., None], new, full)), mask


def _encode_jpeg(reader: TiffReader, page: Any, number: int, new: RGB, mask: Mask) -> tuple[bytes, Mask]:
    blank = not page.databytecounts[number]
    if blank:  # not scanned: the settings of another tile, white around
        number, new = _any_stored(page), np.where(mask[..., None], new, np.uint8(255))
    stream = _jpeg(reader, page, number)
    ycbcr = int(page.photometric) == YCBCR or stream.jfif  # as tifffile decides
    return paste(stream, new, mask, ycbcr, blank)


def _jpeg(reader: TiffReader, page: Any, number: int) -> JpegStream:
    if page.databytecounts[number] > MOST_JPEG_BYTES:
        raise ValueError(f"a JPEG tile of {page.databytecounts[number]} bytes")
    data = reader.stored(page, number)
    demand_size(JPEG, data, (page.tilelength, page.tilewidth))
    return JpegStream.parse(data, page.jpegtables or b"")


def _any_stored(page: Any) -> int:
    number = next((i for i, size in enumerate(page.databytecounts) if size), None)
    if number is None:
        raise ValueError("a level without a stored tile")
    return number


def _encode_lossless(page: Any, pixels: RGB) -> bytes:
    import imagecodecs

    samples = imagecodecs.delta_encode(pixels, axis=-2) if int(page.predictor) == 2 else pixels
    data = np.ascontiguousarray(samples).tobytes()
    kind = LOSSLESS[int(page.compression)]
    if kind == "none":
        return data
    return bytes(imagecodecs.lzw_encode(data) if kind == "LZW" else imagecodecs.deflate_encode(data, level=6))


def _notes(reader: TiffReader, levels: Sequence[LevelChange], shared: int) -> tuple[str, ...]:
    notes = []
    if beside := levels[0].beside:
        notes.append(f"{beside} px beside the new ones were encoded anew, in blocks of JPEG that hold both")
    if reader.image.others:
        notes.append(f"pixels were replaced in the slide alone, not in {', '.join(reader.image.others[:5])}")
    if shared:
        notes.append(f"{shared} bytes of replaced tiles stay in the file, as other tiles point to them")
    return tuple(notes)
