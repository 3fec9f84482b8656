"""What lies beside a slide: annotations for QuPath and the script that brings them in, pictures, manifest.

The annotations are the class map the slide was made from, as polygons in GeoJSON, written in bounded memory.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import LayoutError, OutputError
from wsigen.base.geometry import Box
from wsigen.slide.class_picture import BAND, class_of, class_picture, painted, sampled_classes, shares, veiled, with_legend
from wsigen.storage.files import atomic_path, leftover_name, write_atomic

ClassReader = Callable[[Box], NDArray[np.uint8]]
"""Classes of a box of cells: uint8 ``[h, w]``, positions in a `ClassTable` or ``UNKNOWN``."""

Ring = list[list[int]]
"""Closed ring of ``[x, y]`` corners."""

THUMBNAIL_PX = 1024
"""Longest side of the picture beside a slide."""

LEAST_PX = 16
"""It is not made smaller than this."""

PICTURES = (".png", ".jpg", ".jpeg")
"""Ends of the names of pictures."""

PICTURE_QUALITY = 80
"""Of JPEG pictures."""

EDIT_SCRIPT = "wsigen-edit.groovy"
"""Name of the script for QuPath that makes regions anew; it is the same for all slides of a folder."""

_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "wsigen:annotation")


def write_annotations(
    path: str | os.PathLike[str],
    rows: ClassReader,
    shape: tuple[int, int],
    cell_px: int,
    size_px: tuple[int, int],
    table: ClassTable,
    seed: int,
    mpp: float,
) -> dict[str, float]:
    """Write one annotation per connected region of the class map, in pixels of the full resolution.

    Parameters
    ----------
    rows : ClassReader
        Reads a box of the class map (in cells), a full-width band of rows at a time.
    shape : tuple of int
        ``(height, width)`` of the class map in cells; it covers the slide, and cells outside the slide are
        not read.
    cell_px : int
        Side of a cell in pixels.
    size_px : tuple of int
        ``(height, width)`` of the slide in pixels; regions are cut there.
    seed : int
        Makes the ids of two slides differ; equal input gives an equal file.
    mpp : float
        Micrometres per pixel, for the measured areas.

    Returns
    -------
    dict[str, float]
        Annotated area in square pixels of every class that is not background, also of those that do not
        occur.

    Raises
    ------
    LayoutError
        If the class map does not cover the slide or holds a class that is not in ``table``.
    """
    cells = (-(-size_px[0] // cell_px), -(-size_px[1] // cell_px))
    if shape[0] < cells[0] or shape[1] < cells[1]:
        raise LayoutError(f"class map of {shape} cells of {cell_px} px does not cover {size_px} px")
    areas = {tissue.name: 0 for tissue in table if not tissue.background}
    counts = dict.fromkeys(areas, 0)
    target = Path(path)
    scratch = target.with_name(leftover_name(target.name))  # who makes the file again sweeps it, should this process be killed
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        separator = "\n"
        for index, rings in _regions(rows, cells, table, scratch):
            tissue = table[index]
            scaled = [[_corner(xy, cell_px, size_px) for xy in ring] for ring in rings]
            area = polygon_area(scaled)
            areas[tissue.name] += area
            counts[tissue.name] += 1
            feature = _feature(tissue, counts[tissue.name], scaled, area * mpp * mpp, seed)
            file.write(separator + json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
            separator = ",\n"
        file.write("\n]}\n")
    return {name: float(area) for name, area in areas.items()}


def import_script() -> str:
    """Return a Groovy script for QuPath: it imports ``X.geojson`` into ``X.ome.tiff`` and says it is H&E."""
    return (Path(__file__).parent / "import_annotations.groovy").read_text(encoding="utf-8")


def write_edit_script(folder: Path) -> None:
    """Write ``wsigen-edit.groovy``: QuPath's selected annotations are made anew with wsigen, and the result is opened."""
    write_atomic(folder / EDIT_SCRIPT, (Path(__file__).parent / "wsigen_edit.groovy").read_bytes())


def write_thumbnail(slide_path: str | os.PathLike[str], path: str | os.PathLike[str], side: int = THUMBNAIL_PX) -> None:
    """Write a picture of the whole slide whose longer side is at most ``side`` px; a slide is never enlarged.

    A JPEG is always smaller than the slide's file: of a small slide it has fewer pixels, if need be. A PNG, if the name says
    so, is as large as it is.
    """
    from wsigen.slide.reading import open_image

    slide = open_image(slide_path)
    square = slide.height * slide.aspect, slide.width
    while True:
        scale = min(1.0, side / max(square))
        height, width = (max(1, round(px * scale)) for px in square)
        picture = _encoded(slide.region(Box(0, 0, height, width), (height, width)), path)
        if _is_png(path) or side <= LEAST_PX or "://" in str(slide_path) or len(picture) < Path(slide_path).stat().st_size:
            break
        side = max(height, width) // 2
    write_atomic(path, picture)


def write_overlay(
    picture_path: str | os.PathLike[str],
    path: str | os.PathLike[str],
    rows: ClassReader,
    cell_px: int,
    size_px: tuple[int, int],
    table: ClassTable,
    area_px: Mapping[str, float],
) -> None:
    """Write a slide's picture with its classes over it, and a legend with their shares, as a JPEG.

    Parameters
    ----------
    picture_path : path
        What `write_thumbnail` wrote.
    rows, cell_px, size_px, table
        The class map, as for `write_annotations`.
    area_px : mapping
        Area of each class.
    """
    from PIL import Image

    with Image.open(picture_path) as file:
        picture = file.convert("RGB")
    classes = painted(sampled_classes(rows, cell_px, size_px, (picture.height, picture.width)), table)
    colours = {tissue.name: tissue.color for tissue in table}
    entries = [(colours[name], f"{name} {100 * share:.0f} %") for name, share in shares(area_px).items()]
    write_atomic(path, _encoded(np.asarray(with_legend(veiled(picture, classes), entries, "SYNTHETIC")), path))


def write_annotated(
    picture_path: str | os.PathLike[str],
    path: str | os.PathLike[str],
    features: Sequence[Mapping[str, Any]],
    size_px: tuple[int, int],
    title: str,
) -> None:
    """Write the same from annotations in GeoJSON, as they lie beside a slide.

    Parameters
    ----------
    features : sequence of mapping
        In px of the slide; what is no area is left out.
    title : str
        What the legend says first.
    """
    from PIL import Image
    from rasterio.features import is_valid_geom
    from shapely.geometry import shape

    with Image.open(picture_path) as file:
        picture = file.convert("RGB")
    areas = [f for f in features if (f.get("geometry") or {}).get("type") in ("Polygon", "MultiPolygon")]
    areas = [feature for feature in areas if is_valid_geom(feature["geometry"])]
    colours = dict(class_of(feature) for feature in areas)
    area_px: dict[str, float] = dict.fromkeys(colours, 0.0)
    for feature in areas:
        area_px[class_of(feature)[0]] += shape(feature["geometry"]).area
    classes = class_picture(areas, size_px, (picture.height, picture.width))
    entries = [(colours[name], f"{name} {100 * share:.0f} %") for name, share in shares(area_px).items()]
    write_atomic(path, _encoded(np.asarray(with_legend(veiled(picture, classes), entries, title)), path))


def write_picture(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write uint8 ``(h, w, 3)`` as a PNG or a JPEG, as the name says (OutputError if it says neither)."""
    write_atomic(path, _encoded(pixels, path))


def demand_picture_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name that is neither that of a PNG nor that of a JPEG (OutputError)."""
    if Path(path).suffix.lower() not in PICTURES:
        raise OutputError(f"{path}: pictures are written as PNG or JPEG; choose a name that ends in .png or .jpg")


def _encoded(pixels: NDArray[np.uint8], path: str | os.PathLike[str]) -> bytes:
    from PIL import Image

    demand_picture_name(path)
    buffer = BytesIO()
    kind: dict[str, Any] = {"format": "PNG"} if _is_png(path) else {"format": "JPEG", "quality": PICTURE_QUALITY}
    Image.fromarray(pixels).save(buffer, **kind)
    return buffer.getvalue()


def _is_png(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".png"


def write_manifest(path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Write a manifest as JSON with sorted keys and an indent, so that two can be compared by line."""
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(Path(path), text.encode() + b"\n")


def polygon_area(rings: list[Ring]) -> int:
    """Return the area of an outer ring less its holes, exactly: the corners are whole numbers."""
    outer, *holes = (_ring_area(ring) for ring in rings)
    return outer - sum(holes)


def _ring_area(ring: Ring) -> int:
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))) // 2


def _corner(xy: list[int], cell_px: int, size_px: tuple[int, int]) -> list[int]:
    return [min(xy[0] * cell_px, size_px[1]), min(xy[1] * cell_px, size_px[0])]


def _feature(tissue: TissueClass, number: int, rings: list[Ring], um2: float, seed: int) -> dict[str, Any]:
    """One region as QuPath 0.4 to 0.7 reads it; without ``color`` it would throw and import nothing."""
    text = json.dumps([seed, tissue.name, rings], separators=(",", ":"))
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_IDS, text)),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "name": f"{tissue.name} {number}",
            "classification": {"name": tissue.name, "color": list(tissue.color)},
            "isLocked": True,
            "measurements": {"Area µm^2": round(um2, 4)},
            "metadata": {"source": "wsigen", "synthetic": "true"},
        },
    }


def _regions(rows: ClassReader, shape: tuple[int, int], table: ClassTable, scratch: Path) -> Iterator[tuple[int, list[Ring]]]:
    """Yield ``(class, rings)`` of every connected region, the outer ring first, then its holes, in cells.

    Regions are connected over edges, not corners (with corners, five in a hundred polygons touch themselves
    and are invalid), do not overlap, and cover each cell of a class exactly. Background classes and unknown
    cells are left out.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` of the class map in cells.
    scratch : Path
        A file to be made for the time being; it is removed in the end, whatever happens.

    Raises
    ------
    LayoutError
        If the class map holds a value that is not in ``table``.

    Notes
    -----
    **Memory bound.** The class map passes through a tiled raster on disk, ``BAND`` rows at a time, and GDAL's
    polygoniser walks that raster by scan lines; memory grows with the number of polygons only.
    """
    import rasterio
    from rasterio.features import shapes

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            _write_raster(scratch, rows, shape, table)
            with rasterio.open(scratch, driver="GTiff") as raster:
                for geometry, value in shapes(rasterio.band(raster, 1), connectivity=4):
                    if int(value) != UNKNOWN:
                        rings = geometry["coordinates"]
                        yield int(value), [[[int(x), int(y)] for x, y in ring] for ring in rings]
    finally:
        scratch.unlink(missing_ok=True)


def _write_raster(path: Path, rows: ClassReader, shape: tuple[int, int], table: ClassTable) -> None:
    import rasterio
    from rasterio.windows import Window

    height, width = shape
    keep = _lookup(table)
    size = {"height": height, "width": width, "count": 1, "dtype": "uint8", "bigtiff": "if_safer"}
    tiling = {"tiled": True, "blockxsize": BAND, "blockysize": BAND, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", driver="GTiff", **size, **tiling) as raster:
        for y in range(0, height, BAND):
            box = Box(y, 0, min(y + BAND, height), width)
            cells = np.asarray(rows(box))
            _check(cells, box, table)
            raster.write(keep[cells], 1, window=Window(0, y, width, box.height))


def _check(cells: NDArray[np.uint8], box: Box, table: ClassTable) -> None:
    name = f"class map, rows {box.y0} to {box.y1}"
    if cells.shape != box.shape:
        raise LayoutError(f"{name}: got {cells.shape} cells, expected {box.shape}")
    wrong = np.unique(cells[(cells >= len(table)) & (cells != UNKNOWN)])
    if wrong.size:
        raise LayoutError(f"{name}: got class {wrong[0]}; known are 0 to {len(table) - 1} and {UNKNOWN} (unknown)")


def _lookup(table: ClassTable) -> NDArray[np.uint8]:
    """Class value to itself, or to ``UNKNOWN`` if it is not drawn."""
    keep = np.full(256, UNKNOWN, np.uint8)
    for index, tissue in enumerate(table):
        if not tissue.background:
            keep[index] = index
    return keep
