"""Label images: `read_label_raster` gives the class of every cell of the slide, `read_class_table` what the values mean.

The table is a YAML, JSON or CSV file. A value is a whole number, or a colour such as ``#ff8000``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.csv_file import read_table
from wsigen.base.errors import LayoutError, refusing
from wsigen.base.geometry import Box
from wsigen.base.yaml_file import parse_yaml
from wsigen.layout.class_names import ClassNames, Unresolved
from wsigen.layout.label_image import STRIP_PX, LabelImage, open_label_image
from wsigen.layout.layout import MAX_SIDE_PX, Layout
from wsigen.slide.formats import LOADERS, kind_of

THRESHOLD_GAP = 64
"""A lossy image is read by a threshold if it has two values that lie at least so far apart."""

OTHER_SIZE = 0.01
"""Relative difference of an image's size, or its shape, and the slide's that is let pass."""

MOST_VALUES = 40
"""Values, or runs of them, that a message lists."""

HELP = 'write lines like \'1: Tumor\' (YAML), {"1": "Tumor"} (JSON) or 1,Tumor (CSV); colours as "#ff8000"'

Value = int | str
"""A number, or a colour as ``#rrggbb``."""

Unlisted = Literal["refuse", "ignore", "nearest"]
"""What becomes of values that the table does not list."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterLayout(Layout):
    """A label image stretched over the slide by nearest neighbour.

    Attributes
    ----------
    height, width : int
        Size of the slide (px).
    image : LabelImage
        The label image.
    raster_height, raster_width : int
        How much of it lies on the slide, in its own pixels.
    values, indices : ndarray
        Sorted label values, and the class index of each.
    unlisted : str
        What becomes of other values: refused, of class `classes.UNKNOWN` (``ignore``), or read as the nearest one.
    notes : tuple of str
        What a person should know of it, a line each.
    whole : tuple of int or None
        ``(height, width)`` of the slide that the image is stretched over, if the layout is of a part of it (px).
    at : tuple of int
        ``(y, x)`` where that part begins (px).
    unused_names : tuple of str
        Renamed class names that the table does not have.
    """

    height: int
    width: int
    image: LabelImage
    raster_height: int
    raster_width: int
    values: np.ndarray
    indices: np.ndarray
    unlisted: Unlisted = "refuse"
    notes: tuple[str, ...] = ()
    whole: tuple[int, int] | None = None
    at: tuple[int, int] = (0, 0)
    unused_names: tuple[str, ...] = ()

    def part(self, box: Box) -> RasterLayout:
        """The layout of a part of the slide, a box of its px; it need not begin at a multiple of any cell."""
        return replace(self, height=box.height, width=box.width, whole=(self.height, self.width), at=(box.y0, box.x0))

    def classes(self, box: Box, cell_px: int) -> np.ndarray:
        """Read the labels under the centres (`Layout.classes`)."""
        height, width = self.whole or (self.height, self.width)
        ys = _nearest(np.arange(box.y0, box.y1), cell_px, self.at[0], height, self.raster_height)
        xs = _nearest(np.arange(box.x0, box.x1), cell_px, self.at[1], width, self.raster_width)
        return self.classes_at(ys, xs)

    def classes_at(self, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Return the classes of rising rows and columns of the raster, uint8 ``[len(ys), len(xs)]``, read strip by strip."""
        out = np.empty((len(ys), len(xs)), np.uint8)
        span = int(xs[-1] - xs[0]) + 1
        start = 0
        while start < len(ys):
            end = max(start + 1, int(np.searchsorted(ys, ys[start] + STRIP_PX // span)))
            window = Box(int(ys[start]), int(xs[0]), int(ys[end - 1]) + 1, int(xs[-1]) + 1)
            labels = self.image.read(window)[np.ix_(ys[start:end] - ys[start], xs - xs[0])]
            out[start:end] = self.classes_of(labels)
            start = end
        return out

    def classes_of(self, labels: np.ndarray) -> np.ndarray:
        """Return the class index of each label, uint8 of the same shape.

        Raises
        ------
        LayoutError
            If a label is not listed and such are refused.
        """
        if self.unlisted == "nearest":
            found, which = np.unique(labels, return_inverse=True)
            return self.indices[self._closest(found)][which].reshape(labels.shape)
        place = np.clip(np.searchsorted(self.values, labels), 0, len(self.values) - 1)
        listed = self.values[place] == labels
        if listed.all():
            return self.indices[place]
        if self.unlisted == "refuse":
            raise LayoutError(f"{self.image.path}: holds values that were not there when it was checked; start anew")
        return np.where(listed, self.indices[place], np.uint8(UNKNOWN))

    def _closest(self, labels: np.ndarray) -> np.ndarray:
        """Positions in ``values`` of the nearest to some labels; of colours by their distance in RGB."""
        found, listed = (_channels(v, self.image.form == "colours") for v in (labels, self.values))
        return np.array([np.argmin(((listed - one) ** 2).sum(1)) for one in found], np.int64)


def read_label_raster(
    path: str | Path,
    table: ClassTable,
    classes: Mapping[Value, str] | None,
    size: tuple[int, int] | None,
    background: int,
    scale: float = 1.0,
    names: Mapping[str, str | None] | None = None,
    layout_mpp: float | None = None,
) -> RasterLayout:
    """Open a label image as a layout: PNG or TIFF.

    Parameters
    ----------
    table : ClassTable
        The classes of the model.
    classes : mapping of Value to str or None
        Label value -> class name (an empty name is the background); None: values are indices in ``table``.
    size : tuple of int or None
        ``(height, width)`` of the slide (px): the raster is stretched over it. None: ``scale`` decides.
    background : int
        Class index of label values with an empty name.
    scale : float
        Slide pixels per raster pixel where ``size`` is None.
    names : mapping of str to (str or None), optional
        Class name of the table -> name of a class, or None: the background (`ClassNames`).
    layout_mpp : float, optional
        um per raster pixel, where the user states it: the raster at ``scale`` must then be as large as ``size``.

    Raises
    ------
    LayoutError
        If the file is missing, no label image, truncated, of another shape than the slide, or holds unknown
        values.
    """
    path = Path(path)
    if not path.exists():
        raise LayoutError(f"{path}: no such layout file; check its path")
    advice = "export the annotations as GeoJSON, or a label image as PNG or TIFF"
    if (kind := kind_of(str(path))) not in LOADERS:
        raise LayoutError(f"{path}: neither GeoJSON nor an image that is read here{kind and f' ({kind})'}; {advice}")
    with refusing(LayoutError, f"{path}: neither GeoJSON nor an image that can be read to its end", advice):
        raster = open_label_raster(path, table, classes, background, names)
        height, width = _slide_size(path, (raster.height, raster.width), size, scale)
        if layout_mpp is not None:
            _check_stated(path, (raster.height, raster.width), (height, width), scale, layout_mpp)
        notes = check_values(raster, table, raster.image.counts())
    return replace(raster, height=height, width=width, notes=tuple(f"{path.name}: {note}" for note in notes))


def open_label_raster(
    path: Path,
    table: ClassTable,
    classes: Mapping[Value, str] | None,
    background: int,
    names: Mapping[str, str | None] | None = None,
    unlisted: Unlisted | None = None,
) -> RasterLayout:
    """Open a label image as a layout of its own size; its values are not looked at (`check_values`).

    Parameters
    ----------
    unlisted : str, optional
        By default other values are refused; those of a lossy image are read by a threshold between two that lie far apart.

    Raises
    ------
    LayoutError
        If it is no label image, or a class of ``classes`` is not in ``table``.
    """
    known, colours, unused = _known(path, table, classes, background, names)
    image = open_label_image(path, colours)
    if image.bits == 1 and image.form == "numbers" and 255 not in known and 1 in known:
        known[255] = known.pop(1)
    gap = max(known) - min(known)
    if unlisted is None:
        two = image.lossy and not colours and len(known) == 2 and gap >= THRESHOLD_GAP
        unlisted = "nearest" if two else "refuse"
    values = np.array(sorted(known), np.int64)
    indices = np.array([known[int(v)] for v in values], np.uint8)
    size = (image.height, image.width)
    return RasterLayout(*size, image, *size, values, indices, unlisted, unused_names=tuple(unused))


def check_values(raster: RasterLayout, table: ClassTable, counts: Mapping[int, int]) -> list[str]:
    """Return what a person should know of a label image, after refusing values without a class.

    Parameters
    ----------
    counts : mapping of int to int
        Pixels of each label (`LabelImage.counts`).

    Raises
    ------
    LayoutError
        Naming the values, their pixels, and the known ones; its ``causes`` leave out what to do.
    """
    listed = set(raster.values.tolist())
    unlisted = {v: n for v, n in counts.items() if v not in listed}
    notes, colours = [*raster.image.notes, *raster.image.told_channels()], raster.image.form == "colours"
    if raster.image.lossy and raster.unlisted != "nearest":
        notes.append("lossy compression (JPEG) may have changed its values along borders; save labels as PNG or TIFF")
    if not unlisted:
        return notes
    pixels, total = sum(unlisted.values()), raster.image.height * raster.image.width
    values = _listed(unlisted, colours)
    known = ", ".join(
        f"{_written(int(v), colours)}: {'(no label)' if i == UNKNOWN else table[int(i)].name}"
        for v, i in zip(raster.values, raster.indices, strict=True)
    )
    if raster.unlisted == "nearest":
        why = "lossy compression: " if raster.image.lossy else ""
        return [
            *notes,
            f"{why}{_share(pixels / total)} of the pixels lie between the values listed ({known}): read as the nearest",
        ]
    if raster.unlisted == "ignore":
        return [*notes, f"values without a class, {values}, in {pixels} of {total} pixels are ignored"]
    cause = f"unknown label values {values} in {pixels} of {total} pixels; known: {known}"
    remedy = "correct the image or give a class table"
    if raster.image.lossy:
        cause = f"lossy compression (JPEG) has changed its values: {cause}"
        remedy = "save the labels as PNG"
    raise LayoutError(f"{raster.image.path}: {cause}; {remedy}", [cause])


def read_class_table(path: str | Path) -> dict[Value, str]:
    """Read a mapping from label values to class names.

    A YAML or JSON file holds ``value: name``, ``name: value`` or a list of names (values from 0); a CSV file
    the columns value and name, with or without a header. An empty name means the background.

    Raises
    ------
    LayoutError
        If the file is missing, cannot be parsed, or a value is neither a whole number nor a colour, or appears twice.
    """
    path = Path(path)
    if not path.exists():
        raise LayoutError(f"{path}: no such class table; check the path")
    with refusing(LayoutError, f"{path}: the class table is not a readable text file", HELP):
        if path.suffix.casefold() in (".csv", ".tsv"):
            return _mapping(_csv_pairs(path), path)
        text = path.read_text(encoding="utf-8-sig")
    return value_table(_parse(text, path), path)


def value_table(data: Any, where: str | Path) -> dict[Value, str]:
    """Return label values -> class names of a parsed table (`read_class_table`); an empty name for none.

    Raises
    ------
    LayoutError
        If a value is neither a whole number nor a colour, or appears twice.
    """
    return _mapping(_pairs(data, where), where)


def _nearest(cells: np.ndarray, cell_px: int, at_px: int, slide_px: int, raster_px: int) -> np.ndarray:
    """Return the raster row (or column) under the centre of each cell, in whole numbers; cells count from ``at_px``."""
    nearest = ((2 * cells.astype(np.int64) + 1) * cell_px + 2 * at_px) * raster_px // (2 * slide_px)
    return np.clip(nearest, 0, raster_px - 1)


def _channels(values: np.ndarray, colours: bool) -> np.ndarray:
    """Numbers ``[n, 1]``, or red, green and blue ``[n, 3]`` of 0xRRGGBB."""
    values = values.astype(np.int64)[:, None]
    return values >> np.array([16, 8, 0]) & 255 if colours else values


def _known(
    path: Path,
    table: ClassTable,
    classes: Mapping[Value, str] | None,
    background: int,
    names: Mapping[str, str | None] | None,
) -> tuple[dict[int, int], bool, list[str]]:
    """Label value -> class index, of all values that the table or the model names; whether they are colours; unused names."""
    known = ClassNames(table, names)
    found = {v: known.find(name) for v, name in (classes or dict(enumerate(table.names))).items()}
    unknown = Counter(str(classes[v]) for v, index in found.items() if index is Unresolved.UNKNOWN) if classes else None
    if unknown:
        cause = f"class table of the label image: {known.unknown(unknown)}"
        raise LayoutError(f"{path}: {cause}; rename them with --layout-names", [cause])
    numbers = {int(v[1:], 16) if isinstance(v, str) else v: index for v, index in found.items()}
    indices = {v: index if isinstance(index, int) else background for v, index in numbers.items()}
    return indices, any(isinstance(v, str) for v in found), known.unused


def _slide_size(path: Path, raster: tuple[int, int], size: tuple[int, int] | None, scale: float) -> tuple[int, int]:
    (rh, rw), (h, w) = raster, size or (round(raster[0] * scale), round(raster[1] * scale))
    if not 0 < min(h, w) <= max(h, w) <= MAX_SIDE_PX:
        raise LayoutError(f"{path}: a slide of {w} x {h} px is not possible (1 to {MAX_SIDE_PX}); check --size or --layout-mpp")
    if size is not None and abs((h * rw) / (w * rh) - 1) > OTHER_SIZE:
        raise LayoutError(
            f"{path}: wrong size, the label image is {rw} x {rh} px and the slide {w} x {h} px, "
            "more than 1 % apart in shape; crop the image or change --size"
        )
    return h, w


def _check_stated(path: Path, raster: tuple[int, int], slide: tuple[int, int], scale: float, layout_mpp: float) -> None:
    """Refuse to stretch a raster whose um/px the user states over a slide of another size (LayoutError)."""
    (rh, rw), (h, w) = raster, slide
    if any(abs(side * scale - px) > max(OTHER_SIZE * px, scale) for side, px in ((rh, h), (rw, w))):
        raise LayoutError(
            f"{path}: wrong size, the label image of {rw} x {rh} px at --layout-mpp {layout_mpp:g} is of {rw * scale:.0f} x "
            f"{rh * scale:.0f} px of the slide, which has {w} x {h} px; leave --layout-mpp out to stretch it, or change --size"
        )


def _share(share: float) -> str:
    """Roughly, so that files alike are told together."""
    return next((text for most, text in ((0.01, "under 1 %"), (0.1, "1 to 10 %")) if share < most), "more than 10 %")


def _written(value: int, colours: bool) -> str:
    return f"#{value:06x}" if colours else str(value)


def _listed(values: Iterable[int], colours: bool) -> str:
    """All of some values, runs of numbers as ``3-17``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and not colours and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [_written(a, colours) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in runs[:MOST_VALUES]]
    return ", ".join(texts) + (f" and {len(runs) - MOST_VALUES} more" if len(runs) > MOST_VALUES else "")


def _parse(text: str, path: Path) -> Any:
    with refusing(LayoutError, f"{path}: the class table cannot be parsed", HELP):
        return json.loads(text) if path.suffix.casefold() == ".json" else parse_yaml(text)


def _pairs(data: Any, path: str | Path) -> list[tuple[Any, Any]]:
    if isinstance(data, list):
        return list(enumerate(data))
    if isinstance(data, dict):
        by_name = all(_is_value(v) for v in data.values())
        return [(v, k) if by_name else (k, v) for k, v in data.items()]
    raise LayoutError(f"{path}: the class table is neither a mapping nor a list; {HELP}")


def _csv_pairs(path: Path) -> list[tuple[Any, Any]]:
    header, rows = read_table(path)
    rows = [header, *rows] if header and _is_value(header[0]) else rows
    for row in rows:
        if len(row) < 2:
            raise LayoutError(f"{path}: the line {','.join(row)!r} of the class table has no name; {HELP}")
    return [(row[0], row[1]) for row in rows]


def _value(written: Any) -> Value | None:
    """A number, a colour as ``#rrggbb`` (also written as ``255 128 0`` or ``(255,128,0)``), or None if it is neither."""
    if isinstance(written, str):
        text = written.strip().casefold()
        channels = [int(v) for v in re.findall(r"\d+", text)] if re.fullmatch(r"[(\[]?\d+([ ,;]+\d+){2}[)\]]?", text) else []
        if channels and max(channels) <= 255:
            return "#{:02x}{:02x}{:02x}".format(*channels)
        if re.fullmatch(r"#[0-9a-f]{6}", text):
            return text
    if isinstance(written, bool | float):
        return None
    try:
        return int(written)
    except (TypeError, ValueError):
        return None


def _is_value(written: Any) -> bool:
    return _value(written) is not None


def _mapping(pairs: Iterable[tuple[Any, Any]], path: str | Path) -> dict[Value, str]:
    mapping: dict[Value, str] = {}
    for written, name in pairs:
        value = _value(written)
        if value is None:
            raise LayoutError(f"{path}: the label value {written!r} is not a whole number, nor a colour; {HELP}")
        if value in mapping:
            raise LayoutError(f"{path}: the label value {value} appears twice; keep one line for each value")
        mapping[value] = "" if name is None else str(name).strip()
    if not mapping:
        raise LayoutError(f"{path}: the class table is empty; {HELP}")
    if len({type(value) for value in mapping}) > 1:
        raise LayoutError(f"{path}: both numbers and colours as label values; an image has one or the other")
    return mapping
