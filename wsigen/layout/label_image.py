"""`LabelImage`: a picture whose pixels are labels, each read as one whole number, whatever form the file has.

A label is a grey value, the index of a palette, or a colour as 0xRRGGBB. What is no label (alpha, several planes, fractions) is
told or refused; nothing is converted, scaled or smoothed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsigen.base.errors import LayoutError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.formats import check_size, kind_of, open_picture
from wsigen.slide.streams import PLAIN
from wsigen.storage.files import atomic_path

STRIP_PX = 2**24
"""Pixels read at a time: bounds the memory of a read, whatever box is asked for."""

GREY_WITHIN = 8
"""How far the channels of a grey picture saved as colours may differ in a lossy file: JPEG rounds. In others they are equal."""

ADVICE = "save the labels as one band of 8 or 16 bit whole numbers (grey PNG or TIFF)"

_LOSSY_CODECS = {6, 7, 33003, 33005, 33007, 34712, 34892, 50001}
"""TIFF's JPEG, JPEG 2000 and WebP: they change values."""

Form = Literal["numbers", "index", "colours"]

Channels = Literal["grey", "red", "colours"]
"""What the channels of a picture hold: the same, something in red and 0 in the others, or more."""


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A label image. Holds no pixels: every process opens the file for itself and reads the part it needs.

    Attributes
    ----------
    path : str
        The file.
    height, width : int
        Its size (px).
    form : str
        What a label is: ``numbers``, ``index`` of a palette, or ``colours``, 0xRRGGBB.
    bits : int
        Per label; labels of 1 bit are 0 and 255.
    lossy : bool
        Whether the file's compression changes values, as JPEG does.
    by_region : bool
        Whether a box is read without decoding the whole file.
    notes : tuple of str
        What a person should know of the file, a line each.
    """

    path: str
    height: int
    width: int
    form: Form
    bits: int = 8
    lossy: bool = False
    by_region: bool = False
    notes: tuple[str, ...] = ()

    def read(self, window: Box) -> np.ndarray:
        """Return the labels of a box of its pixels, whole numbers ``[h, w]``.

        Raises
        ------
        LayoutError
            If the file cannot be read (any more).
        """
        with refusing(LayoutError, f"{self.path}: the label image cannot be read any more", "bring it back"):
            return self._labels().crop(window.x0, window.y0, window.width, window.height).numpy().reshape(window.shape)

    def counts(self) -> Counter[int]:
        """Read the whole image once, strip by strip, and return how many pixels have each label.

        Raises
        ------
        LayoutError
            If it cannot be read to its end, or labels are numbers and the picture is in colour.
        """
        with refusing(LayoutError, f"{self.path}: not a label image that can be read to its end", ADVICE):
            self._demand_grey()
            return _counts(self._labels())

    def copied(self, folder: Path) -> LabelImage:
        """Return the same labels in a tiled TIFF in a folder, made once, so that boxes are read by region.

        Raises
        ------
        LayoutError
            If it cannot be read or written; nothing half-written stays.
        """
        path, stat = Path(self.path), Path(self.path).stat()
        key = hashlib.sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{self.form}".encode()).hexdigest()[:16]
        target = folder / f"{path.stem}-{key}.tif"
        if not target.exists():
            with refusing(LayoutError, f"{folder}: the tiled copy of {path.name} cannot be written", "make room there"):
                self._demand_grey()
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_path(target) as beside:
                    labels = self._labels()
                    labels.tiffsave(
                        str(beside), tile=True, tile_width=512, tile_height=512, compression="deflate", level=1, bigtiff=True
                    )
        return replace(self, path=str(target), form="numbers", by_region=True)

    def _labels(self) -> Any:
        return _open(self.path, self.form, Path(self.path).stat().st_mtime_ns, os.getpid())

    def told_channels(self) -> list[str]:
        """Say whether its labels lie in one of three channels: the whole image is read, once in a process."""
        return ["its labels are its red; green and blue are 0 everywhere"] if self._channels() == "red" else []

    def _channels(self) -> Channels:
        if self.form != "numbers":
            return "grey"
        return _channels(self.path, GREY_WITHIN if self.lossy else 0, Path(self.path).stat().st_mtime_ns)

    def _demand_grey(self) -> None:
        """Refuse colours where labels are numbers: one channel of them says nothing, unless the others are empty."""
        if self._channels() == "colours":
            colours = _counts(_packed(open_picture(self.path, LayoutError))).most_common(6)
            listed = ", ".join(f"'#{colour:06x}' ({count} px)" for colour, count in colours)
            raise LayoutError(f"{self.path}: a picture in colour; list its colours instead of numbers, such as {listed}")


def open_label_image(path: str | Path, colours: bool = False) -> LabelImage:
    """Open a label image; only its header is read.

    Parameters
    ----------
    colours : bool
        Whether its labels are colours. Of a palette they are its indices otherwise.

    Raises
    ------
    LayoutError
        For several planes, fractions, and grey of 2 or 4 bits (decoders stretch those to 0..255).
    """
    path = str(Path(path).resolve())
    lossy, by_region, palette = kind_of(path) in ("JPEG", "WebP"), False, False
    image = open_picture(path, LayoutError)
    if kind_of(path) == "TIFF":
        lossy, by_region, palette = _look_at_tiff(path)
    fields = image.get_fields()
    palette = palette or ("palette" in fields and bool(image.get("palette")))
    bits = int(image.get("bits-per-sample")) if "bits-per-sample" in fields else 8
    notes = ["its alpha channel is ignored"] if image.hasalpha() and not palette else []
    bands = image.bands - image.hasalpha()
    form: Form = "colours" if colours else "index" if palette else "numbers"
    if form == "index":
        notes.append("its labels are the indices of its palette")
    elif bands not in (1, 3) or (bands == 3 and image.interpretation not in ("srgb", "rgb")):
        raise LayoutError(f"{path}: the image has {image.bands} bands of the kind {image.interpretation}; {ADVICE}")
    elif colours and (bands != 3 or image.format != "uchar"):
        raise LayoutError(f"{path}: {bands} band of the type {image.format}, no colours of 8 bits; list its numbers instead")
    if image.format not in ("uchar", "char", "ushort", "short", "uint", "int"):
        raise LayoutError(f"{path}: the values are of type {image.format}, not whole numbers; {ADVICE}")
    if form == "numbers" and 1 < bits < 8:
        raise LayoutError(f"{path}: the image has {bits} bit per pixel; {ADVICE}")
    return LabelImage(path, image.height, image.width, form, bits, lossy, by_region, tuple(notes))


def _look_at_tiff(path: str) -> tuple[bool, bool, bool]:
    """Return whether a TIFF is lossy, has tiles and has a palette, after refusing several planes."""
    import tifffile

    with (
        refusing(LayoutError, f"{path}: not an image that can be read to its end", ADVICE),
        tifffile.TiffFile(path, _multifile=False) as tif,  # OME-XML may name any file as one of the same image
    ):
        series = max(tif.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
        page = series.keyframe
        if len(series) > 1:
            raise LayoutError(f"{path}: {len(series)} planes of one size; {ADVICE}, every class a value of it")
        if page.index != 0:
            raise LayoutError(f"{path}: its first image is not its largest; save the largest alone")
        return page.compression in _LOSSY_CODECS, bool(page.is_tiled), page.photometric == 3


@functools.lru_cache(maxsize=256)
def _channels(path: str, within: int, stamp: int) -> Channels:
    """What the channels of a picture hold, ``within`` so much; ``stamp`` (its time of change) makes it a new entry."""
    image = open_picture(path, LayoutError)
    if image.bands < 3 or (image[0] - image[1]).abs().bandjoin((image[0] - image[2]).abs()).max() <= within:
        return "grey"
    return "colours" if image[1].bandjoin(image[2]).abs().max() else "red"


@functools.lru_cache(maxsize=32)
def _open(path: str, form: Form, stamp: int, process: int) -> Any:
    """Open a file once per process, as a libvips image of one band; ``stamp`` (its time of change) makes it a new entry.

    A file without tiles is decoded whole and kept: datasets copy those of more than 4 Mpx.
    """
    if form == "index":
        return _indices(path)
    image = open_picture(path, LayoutError)
    return _packed(image) if form == "colours" else image[0]


def _indices(path: str) -> Any:
    """The indices of a palette; libvips would read its colours."""
    import pyvips
    import tifffile
    from PIL import Image

    if kind_of(path) == "TIFF":
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            check_size(path, page.shape[:2], 1, at_once=True, fault=LayoutError)
            if int(page.compression) not in PLAIN:
                raise LayoutError(f"{path}: a palette whose tiles are pictures ({page.compression.name}); {ADVICE}")
            return pyvips.Image.new_from_array(np.ascontiguousarray(page.asarray()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here
        with Image.open(path) as image:
            check_size(path, (image.height, image.width), 1, at_once=True, fault=LayoutError)
            if image.mode != "P":
                raise LayoutError(f"{path}: a palette that is read as {image.mode}; {ADVICE}")
            return pyvips.Image.new_from_array(np.asarray(image))


def _packed(image: Any) -> Any:
    """Colours as one number, 0xRRGGBB."""
    return (image[0] * 65536 + image[1] * 256 + image[2]).cast("uint")


def _counts(labels: Any) -> Counter[int]:
    counts: Counter[int] = Counter()
    if labels.format in ("uchar", "ushort"):
        histogram = labels.hist_find().numpy().ravel()
        counts.update({int(v): int(histogram[v]) for v in np.flatnonzero(histogram)})
        return counts
    rows = max(1, STRIP_PX // labels.width)
    for y in range(0, labels.height, rows):
        counts.update(_counted(labels.crop(0, y, labels.width, min(rows, labels.height - y)).numpy().ravel()))
    return counts


def _counted(labels: np.ndarray) -> dict[int, int]:
    """Count by runs of equal labels, which are long: sorting every pixel takes ten times as long."""
    starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    lengths = np.diff(np.append(starts, len(labels)))
    values, which = np.unique(labels[starts], return_inverse=True)
    totals = np.bincount(which.ravel(), weights=lengths)
    return {int(v): int(n) for v, n in zip(values, totals, strict=True)}
