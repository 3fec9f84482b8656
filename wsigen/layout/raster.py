"""Label images: `read_label_raster` gives the class of every cell of the slide, `read_class_table` what the values mean.

The table is a YAML, JSON or CSV file.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.classes import ClassTable
from wsigen.base.csv_file import read_table
from wsigen.base.errors import LayoutError, refusing
from wsigen.base.geometry import Box
from wsigen.base.yaml_file import parse_yaml
from wsigen.layout.class_names import ClassNames, Unresolved
from wsigen.layout.layout import MAX_SIDE_PX, Layout
from wsigen.slide.formats import LOADERS, kind_of, open_picture

STRIP_PX = 2**24
"""Raster pixels read at a time: bounds the memory of a read, whatever box is asked for."""

HELP = 'write lines like \'1: Tumor\' (YAML), {"1": "Tumor"} (JSON) or 1,Tumor (CSV)'


@dataclass(frozen=True, slots=True)
class RasterLayout(Layout):
    """A label image stretched over the slide by nearest neighbour.

    Holds no pixels: every process opens the file for itself and reads the part it needs.

    Attributes
    ----------
    height, width : int
        Size of the slide (px).
    path : str
        The label image.
    raster_height, raster_width : int
        Its size in its own pixels.
    values, indices : ndarray
        Sorted label values, and the class index of each.
    """

    height: int
    width: int
    path: str
    raster_height: int
    raster_width: int
    values: np.ndarray
    indices: np.ndarray

    def classes(self, box: Box, cell_px: int) -> np.ndarray:
        """Read the labels under the centres, a strip of the raster at a time (`Layout.classes`)."""
        out = np.empty(box.shape, np.uint8)
        ys = _nearest(np.arange(box.y0, box.y1), cell_px, self.height, self.raster_height)
        xs = _nearest(np.arange(box.x0, box.x1), cell_px, self.width, self.raster_width)
        span = int(xs[-1] - xs[0]) + 1
        start = 0
        while start < len(ys):
            end = max(start + 1, int(np.searchsorted(ys, ys[start] + STRIP_PX // span)))
            window = Box(int(ys[start]), int(xs[0]), int(ys[end - 1]) + 1, int(xs[-1]) + 1)
            labels = self._read(window)[np.ix_(ys[start:end] - ys[start], xs - xs[0])]
            out[start:end] = self._classes(labels)
            start = end
        return out

    def _read(self, window: Box) -> np.ndarray:
        with refusing(LayoutError, f"{self.path}: the label image cannot be read any more", "bring it back"):
            image = _open(self.path, Path(self.path).stat().st_mtime_ns)
            pixels = image.crop(window.x0, window.y0, window.width, window.height).numpy()
        return pixels.reshape(window.shape)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        place = np.clip(np.searchsorted(self.values, labels), 0, len(self.values) - 1)
        if not np.array_equal(self.values[place], labels):
            raise LayoutError(f"{self.path}: holds values that were not there when it was checked; start the run anew")
        return self.indices[place]


def read_label_raster(
    path: str | Path,
    table: ClassTable,
    classes: Mapping[int, str] | None,
    size: tuple[int, int] | None,
    background: int,
    scale: float = 1.0,
    names: Mapping[str, str | None] | None = None,
) -> RasterLayout:
    """Open a label image: one band of whole numbers, as PNG or TIFF.

    Parameters
    ----------
    table : ClassTable
        The classes of the model.
    classes : mapping of int to str or None
        Label value -> class name (an empty name is the background); None: values are indices in ``table``.
    size : tuple of int or None
        ``(height, width)`` of the slide (px): the raster is stretched over it. None: ``scale`` decides.
    background : int
        Class index of label values with an empty name.
    scale : float
        Slide pixels per raster pixel where ``size`` is None.
    names : mapping of str to (str or None), optional
        Class name of the table -> name of a class, or None: the background (`ClassNames`).

    Raises
    ------
    LayoutError
        If the file is missing, no label image, truncated, of another shape than the slide, or holds unknown
        values.
    """
    path = Path(path)
    if not path.exists():
        raise LayoutError(f"{path}: no such layout file; check the path given to --layout")
    known = _known(path, table, classes, background, names)
    advice = "export the annotations as GeoJSON, or a label image as PNG or TIFF"
    if (kind := kind_of(str(path))) not in LOADERS:
        raise LayoutError(f"{path}: neither GeoJSON nor an image that is read here{kind and f' ({kind})'}; {advice}")
    with refusing(LayoutError, f"{path}: neither GeoJSON nor an image that can be read to its end", advice):
        image = _open(str(path.resolve()), path.stat().st_mtime_ns)
        _check_image(path, image)
        height, width = _slide_size(path, (image.height, image.width), size, scale)
        _check_values(path, image, known, table)
    values = np.array(sorted(known), np.int64)
    indices = np.array([known[int(v)] for v in values], np.uint8)
    return RasterLayout(height, width, str(path.resolve()), image.height, image.width, values, indices)


def read_class_table(path: str | Path) -> dict[int, str]:
    """Read a mapping from label values to class names.

    A YAML or JSON file holds ``value: name``, ``name: value`` or a list of names (values from 0); a CSV file
    the columns value and name, with or without a header. An empty name means the background.

    Raises
    ------
    LayoutError
        If the file is missing, cannot be parsed, or a value is no whole number or appears twice.
    """
    path = Path(path)
    if not path.exists():
        raise LayoutError(f"{path}: no such class table; check the path")
    with refusing(LayoutError, f"{path}: the class table is not a readable text file", HELP):
        if path.suffix.casefold() in (".csv", ".tsv"):
            return _mapping(_csv_pairs(path), path)
        text = path.read_text(encoding="utf-8-sig")
    return _mapping(_pairs(_parse(text, path), path), path)


def _nearest(cells: np.ndarray, cell_px: int, slide_px: int, raster_px: int) -> np.ndarray:
    """Return the raster row (or column) under the centre of each cell, in whole numbers."""
    nearest = (2 * cells.astype(np.int64) + 1) * cell_px * raster_px // (2 * slide_px)
    return np.clip(nearest, 0, raster_px - 1)


@functools.lru_cache(maxsize=4)
def _open(path: str, stamp: int) -> Any:
    """Open a file once per process; ``stamp`` (its time of change) makes a new file a new entry."""
    return open_picture(path, LayoutError)


def _known(
    path: Path,
    table: ClassTable,
    classes: Mapping[int, str] | None,
    background: int,
    names: Mapping[str, str | None] | None,
) -> dict[int, int]:
    """Label value -> class index, of all values that the table or the model names."""
    known = ClassNames(table, names)
    found = {v: known.find(name) for v, name in (classes or dict(enumerate(table.names))).items()}
    unknown = Counter(str(classes[v]) for v, index in found.items() if index is Unresolved.UNKNOWN) if classes else None
    if unknown:
        raise LayoutError(f"{path}: class table of the label image: {known.unknown(unknown)}; rename them with --layout-names")
    return {v: index if isinstance(index, int) else background for v, index in found.items()}


def _slide_size(path: Path, raster: tuple[int, int], size: tuple[int, int] | None, scale: float) -> tuple[int, int]:
    (rh, rw), (h, w) = raster, size or (round(raster[0] * scale), round(raster[1] * scale))
    if not 0 < min(h, w) <= max(h, w) <= MAX_SIDE_PX:
        raise LayoutError(f"{path}: a slide of {w} x {h} px is not possible (1 to {MAX_SIDE_PX}); check --size or --layout-mpp")
    if size is not None and abs((h * rw) / (w * rh) - 1) > 0.01:
        raise LayoutError(
            f"{path}: wrong size, the label image is {rw} x {rh} px and the slide {w} x {h} px, "
            "more than 1 % apart in shape; crop the image or change --size"
        )
    return h, w


def _check_image(path: Path, image: Any) -> None:
    """Refuse images that are not one band of whole numbers.

    Raises
    ------
    LayoutError
        For colour and palette images, fractions, and fewer than 8 bits (libvips stretches those to 0..255).
    """
    fields = image.get_fields()
    remedy = "save the labels as one band of 8 or 16 bit whole numbers (grey PNG or TIFF)"
    if "palette" in fields and image.get("palette"):
        raise LayoutError(f"{path}: a palette image, its colours are read and not its labels; {remedy}")
    if image.bands != 1:
        raise LayoutError(f"{path}: the image has {image.bands} bands, labels need one (palette or colours?); {remedy}")
    if image.format not in ("uchar", "char", "ushort", "short", "uint", "int"):
        raise LayoutError(f"{path}: the values are of type {image.format}, not whole numbers; {remedy}")
    bits = image.get("bits-per-sample") if "bits-per-sample" in fields else 8
    if bits < 8:
        raise LayoutError(f"{path}: the image has {bits} bit per pixel; {remedy}")


def _check_values(path: Path, image: Any, known: Mapping[int, int], table: ClassTable) -> None:
    """Read the whole image once, strip by strip, and refuse values without a class.

    Raises
    ------
    LayoutError
        Naming the values, their pixels, and the known ones.
    """
    unknown = {v: n for v, n in _histogram(image).items() if v not in known}
    if not unknown:
        return
    most = sorted(unknown, key=lambda v: (-unknown[v], v))[:8]
    values = ", ".join(str(v) for v in most) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    names = ", ".join(f"{v}: {table[i].name}" for v, i in sorted(known.items()))
    raise LayoutError(
        f"{path}: unknown label values {values} in {sum(unknown.values())} of "
        f"{image.width * image.height} pixels; "
        f"known: {names}; correct the image or give a class table"
    )


def _histogram(image: Any) -> Counter[int]:
    """Return how many pixels have each value."""
    counts: Counter[int] = Counter()
    if image.format in ("uchar", "ushort"):
        histogram = image.hist_find().numpy().ravel()
        counts.update({int(v): int(histogram[v]) for v in np.flatnonzero(histogram)})
        return counts
    rows = max(1, STRIP_PX // image.width)
    for y in range(0, image.height, rows):
        values, numbers = np.unique(image.crop(0, y, image.width, min(rows, image.height - y)).numpy(), return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return counts


def _parse(text: str, path: Path) -> Any:
    with refusing(LayoutError, f"{path}: the class table cannot be parsed", HELP):
        return json.loads(text) if path.suffix.casefold() == ".json" else parse_yaml(text)


def _pairs(data: Any, path: Path) -> list[tuple[Any, Any]]:
    if isinstance(data, list):
        return list(enumerate(data))
    if isinstance(data, dict):
        by_name = all(isinstance(v, int) and not isinstance(v, bool) for v in data.values())
        return [(v, k) if by_name else (k, v) for k, v in data.items()]
    raise LayoutError(f"{path}: the class table is neither a mapping nor a list; {HELP}")


def _csv_pairs(path: Path) -> list[tuple[Any, Any]]:
    header, rows = read_table(path)
    rows = [header, *rows] if header and _is_int(header[0]) else rows
    for row in rows:
        if len(row) < 2:
            raise LayoutError(f"{path}: the line {','.join(row)!r} of the class table has no name; {HELP}")
    return [(row[0], row[1]) for row in rows]


def _is_int(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, float)


def _mapping(pairs: Iterable[tuple[Any, Any]], path: Path) -> dict[int, str]:
    mapping: dict[int, str] = {}
    for value, name in pairs:
        if not _is_int(value):
            raise LayoutError(f"{path}: the label value {value!r} is not a whole number; {HELP}")
        if int(value) in mapping:
            raise LayoutError(f"{path}: the label value {int(value)} appears twice; keep one line for each value")
        mapping[int(value)] = "" if name is None else str(name).strip()
    if not mapping:
        raise LayoutError(f"{path}: the class table is empty; {HELP}")
    return mapping
