"""`read_layout`: a layout from a file, whatever it is: GeoJSON or a label image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsigen.base.classes import ClassTable
from wsigen.base.errors import LayoutError
from wsigen.layout.geojson import read_geojson
from wsigen.layout.geojson_file import looks_like_json
from wsigen.layout.polygons import PolygonLayout
from wsigen.layout.raster import RasterLayout, read_class_table, read_label_raster


def read_layout(
    path: str | Path,
    table: ClassTable,
    size: tuple[int, int] | None,
    background: int,
    scale: float = 1.0,
    class_table_path: str | Path | None = None,
    names: Mapping[str, str | None] | None = None,
    nuclei: str | None = None,
    layout_mpp: float | None = None,
) -> PolygonLayout | RasterLayout:
    """Read a layout; the file's content decides how.

    Parameters
    ----------
    size : tuple of int or None
        ``(height, width)`` of the slide (px), or None: the layout's extent decides.
    background : int
        Class index where the layout says nothing.
    scale : float
        Slide pixels per pixel of the layout.
    class_table_path : str or Path or None
        What the values of a label image mean (`read_class_table`).
    names : mapping of str to (str or None), optional
        Classification of the file -> name of a class, or None: as if it were not drawn (`class_names.ClassNames`).
    nuclei : str, optional
        Class of the nuclei of QuPath's cells (`read_geojson`).
    layout_mpp : float, optional
        um per px of the layout, where the user states it: ``scale`` follows from it.

    Raises
    ------
    LayoutError
        If the file is missing or cannot be used.
    ConfigError
        If a renamed class is none.
    """
    path = Path(path)
    if looks_like_json(path):
        if class_table_path is not None:
            raise LayoutError(f"{path}: GeoJSON names its classes itself; leave the class table {class_table_path} out")
        return read_geojson(path, table, size, background, scale, names, nuclei, layout_mpp=layout_mpp)
    if nuclei is not None:
        raise LayoutError(f"{path}: a label image has no cells with nuclei; leave 'nuclei' out, or give QuPath's GeoJSON")
    classes = None if class_table_path is None else read_class_table(class_table_path)
    return read_label_raster(path, table, classes, size, background, scale, names, layout_mpp)
