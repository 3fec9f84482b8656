"""Classes in their colours: over a picture of the whole slide, and with a legend."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.errors import LayoutError, printable, refusing
from wsigen.base.geometry import Box

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
Size = tuple[int, int]

OVERLAY = 0.35
"""Opacity of classes over a picture."""

BAND = 512
"""Rows of cells that are read at a time."""

MOST_BYTES = 2**30
"""Of a file of annotations."""

UNCLASSIFIED, GREY = "Unclassified", (128, 128, 128)

_TEXT_PX, _GAP_PX = 16, 10
_INK, _EDGE = (40, 32, 56), (190, 182, 200)


def read_features(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the areas of a GeoJSON file: its features that are polygons.

    Raises
    ------
    LayoutError
        If it is no GeoJSON, or larger than 1 GiB.
    """
    with refusing(LayoutError, f"{path}: no annotations in GeoJSON", "export them from QuPath as GeoJSON"):
        if Path(path).stat().st_size > MOST_BYTES:
            raise LayoutError(f"{path}: more than {MOST_BYTES >> 20} MiB of annotations; leave some out")
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        features = content["features"] if isinstance(content, dict) else content
        return [f for f in features if (f.get("geometry") or {}).get("type") in ("Polygon", "MultiPolygon")]


def class_of(feature: Mapping[str, Any]) -> tuple[str, Colour]:
    """Name and colour of the class of an area; strangers write what they like there, and it is grey then."""
    said = (feature.get("properties") or {}).get("classification") or {}
    if not isinstance(said, Mapping):
        return (said if isinstance(said, str) else UNCLASSIFIED), GREY
    return str(said.get("name") or UNCLASSIFIED), _colour(said.get("color"))


def _colour(said: Any) -> Colour:
    if not isinstance(said, list | tuple) or len(said) < 3 or not all(type(value) is int for value in said[:3]):
        return GREY
    red, green, blue = (value & 255 for value in said[:3])
    return red, green, blue


def class_picture(
    features: Sequence[Mapping[str, Any]], size_px: Size, canvas: Size, origin: Size = (0, 0)
) -> NDArray[np.uint8]:
    """Return areas in the colours of their classes, uint8 RGBA ``(h, w, 4)``, clear where there is none.

    Parameters
    ----------
    features : sequence of mapping
        GeoJSON, coordinates in px of the slide.
    size_px, canvas : tuple of int
        ``(height, width)`` of the slide and of the picture.
    origin : tuple of int
        ``(x, y)`` on the slide that coordinates count from, px.
    """
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    if not features:
        return np.zeros((*canvas, 4), np.uint8)
    colours = list(dict.fromkeys(class_of(feature) for feature in features))[:255]
    shapes = [(f["geometry"], 1 + colours.index(class_of(f))) for f in features if class_of(f) in colours]
    to_px = Affine(size_px[1] / canvas[1], 0, -origin[0], 0, size_px[0] / canvas[0], -origin[1])
    index = rasterize(shapes, out_shape=canvas, transform=to_px, fill=0, dtype="uint8")
    palette = np.array([(0, 0, 0, 0), *((*colour, 255) for _, colour in colours)], np.uint8)
    return palette[index]


def sampled_classes(rows: Callable[[Box], NDArray[np.uint8]], cell_px: int, size_px: Size, canvas: Size) -> NDArray[np.uint8]:
    """Return the class at the middle of each px of a picture, uint8 ``(h, w)``, from a class map that is read in bands.

    Parameters
    ----------
    rows : callable
        Reads a box of the class map, in cells.
    cell_px : int
        Side of a cell in px of the slide.
    size_px, canvas : tuple of int
        ``(height, width)`` of the slide and of the picture.

    Notes
    -----
    **Memory bound.** `BAND` rows of the class map; its polygons may be of any number.
    """
    cells = [-(-side // cell_px) for side in size_px]
    y, x = (
        np.minimum((np.arange(n) + 0.5) * side / n / cell_px, count - 1).astype(int)
        for n, side, count in zip(canvas, size_px, cells, strict=True)
    )
    out = np.empty(canvas, np.uint8)
    for top in range(0, cells[0], BAND):
        band = Box(top, 0, min(top + BAND, cells[0]), cells[1])
        here = np.flatnonzero((y >= band.y0) & (y < band.y1))
        if here.size:
            out[here] = np.asarray(rows(band))[np.ix_(y[here] - top, x)]
    return out


def painted(classes: NDArray[np.uint8], table: ClassTable) -> NDArray[np.uint8]:
    """Return classes ``(h, w)`` in their colours, uint8 RGBA ``(h, w, 4)``; background and what is not known are clear."""
    palette = np.zeros((256, 4), np.uint8)
    for index, tissue in enumerate(table):
        if not tissue.background:
            palette[index] = (*tissue.color, 255)
    return palette[classes]


def veiled(picture: Image, classes: NDArray[np.uint8]) -> Image:
    """Lay a veil of its colour over each class on a picture; ``classes`` is RGBA ``(h, w, 4)`` of the picture's size."""
    from PIL import Image

    opacity = Image.fromarray((classes[..., 3] * OVERLAY).astype(np.uint8))
    return Image.composite(Image.fromarray(np.ascontiguousarray(classes[..., :3])), picture, opacity)


def with_legend(picture: Image, entries: Iterable[tuple[Colour, str]], title: str = "") -> Image:
    """Add a strip below a picture: a title, and squares of colour with what they mean, in as many lines as that needs."""
    from PIL import Image, ImageDraw

    font = legend_font(_TEXT_PX)
    square, line = _TEXT_PX, _TEXT_PX + _GAP_PX
    width = max(picture.width, 320)
    lines: list[list[tuple[Colour | None, str, int]]] = [[]]
    x = _GAP_PX
    for colour, name in [(None, title), *entries] if title else list(entries):
        text = printable(name)
        needs = (square + 6 if colour is not None else 0) + int(font.getlength(text)) + 2 * _GAP_PX
        if x + needs > width and lines[-1]:
            lines.append([])
            x = _GAP_PX
        lines[-1].append((colour, text, x))
        x += needs
    out = Image.new("RGB", (width, picture.height + _GAP_PX + line * len(lines)), "white")
    out.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(out)
    for number, row in enumerate(lines):
        y = picture.height + _GAP_PX + number * line
        for colour, text, left in row:
            if colour is not None:
                draw.rectangle((left, y, left + square - 1, y + square - 1), fill=colour, outline=_EDGE)
            draw.text((left + (square + 6 if colour is not None else 0), y - 2), text, fill=_INK, font=font)
    return out


def legend_font(size: int) -> Any:
    """The font that Pillow brings with it, on every machine the same."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def shares(area_px: Mapping[str, float]) -> dict[str, float]:
    """Each class's share of all annotated area, largest first; those that do not occur are left out."""
    total = sum(area_px.values()) or 1.0
    there = {name: area / total for name, area in area_px.items() if area}
    return dict(sorted(there.items(), key=lambda item: -item[1]))
