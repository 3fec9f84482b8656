"""`read_geojson`: annotations drawn in QuPath -> the class of every cell of the slide.

Where annotations overlap the smaller one wins: areas are painted from large to small, so that a nest of
tumour on top of the stroma shows, whatever their order in the file. Of two equal areas the later one wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, LayoutError, suggest
from wsigen.base.geometry import Box
from wsigen.layout.geojson_checks import check_contents, check_extent, valid_area
from wsigen.layout.geojson_features import Feature, declared_unit, read_features, renamed
from wsigen.layout.geojson_file import load_json
from wsigen.layout.layout import inner_box
from wsigen.layout.scanline import downward_edges, inside

STRIP_CELLS = 2**21
"""Cells filled at a time: bounds the memory of filling, whatever box is asked for."""


@dataclass(frozen=True, slots=True)
class Area:
    """One polygon: its class, its bounds (y0, x0, y1, x1) and its edges, in slide px (see `scanline`)."""

    class_index: int
    bounds: tuple[float, float, float, float]
    edges: np.ndarray

    def cells(self, cell_px: int) -> Box:
        """Return a box of cells that holds every centre inside the polygon."""
        y0, x0, y1, x1 = (v / cell_px for v in self.bounds)
        return Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1))


@dataclass(frozen=True, slots=True)
class GeoJsonLayout:
    """Polygons on a background; see `Layout`.

    Attributes
    ----------
    height, width:
        Size of the slide (px).
    background:
        Class index outside every polygon.
    areas:
        In the order they are painted: large first.
    ignored:
        Points, lines and polygons without area that were left out.
    """

    height: int
    width: int
    background: int
    areas: tuple[Area, ...]
    ignored: int = 0

    def class_map(self, box: Box, cell_px: int) -> np.ndarray:
        """Return uint8 ``[box.height, box.width]``: the class at every cell's centre (`Layout.class_map`)."""
        inner, rows, columns = inner_box(box, cell_px, self.height, self.width)
        out = np.full(inner.shape, self.background, np.uint8)
        strip_rows = max(1, STRIP_CELLS // max(1, inner.width))
        for y in range(inner.y0, inner.y1, strip_rows):
            strip = Box(y, inner.x0, y + strip_rows, inner.x1).intersect(inner)
            for area in self.areas:
                part = area.cells(cell_px).intersect(strip)
                if not part.empty:
                    out[part.relative_to(inner).slices][inside(area.edges, part, cell_px)] = area.class_index
        return out[np.ix_(rows, columns)]


def read_geojson(
    path: str | Path,
    table: ClassTable,
    size: tuple[int, int] | None,
    background: int,
    scale: float = 1.0,
    default_class: int | None = None,
    names: Mapping[str, str | None] | None = None,
) -> GeoJsonLayout:
    """Read what QuPath exports as GeoJSON (plain or ``.gz``).

    Parameters
    ----------
    table:
        The classes that annotations may have; case does not matter.
    size:
        ``(height, width)`` of the slide (px), or None: the polygons' extent decides.
    background:
        Class index outside every polygon.
    scale:
        Slide pixels per unit of the file: the um/px the layout was drawn at over that of the slide.
    default_class:
        Class index of polygons without a classification; None makes them an error.
    names:
        Classification -> name of a class, or None: as if it were not drawn (`geojson_features.renamed`).

    Raises
    ------
    LayoutError
        If the file, a feature or the whole cannot be used: what, where and what to do.
    """
    path = Path(path)
    try:
        data = load_json(path)
        features = renamed(read_features(data, path), names or {}, path)
    except RecursionError:
        raise LayoutError(f"{path}: the JSON is nested too deeply; export the annotations anew from QuPath") from None
    height, width = check_extent(path, features, size, scale, declared_unit(data))
    sized: list[tuple[float, Area]] = []
    skipped = sum(f.ignored for f in features)
    for feature in features:
        areas = [(a, rings) for rings in feature.polygons if (a := valid_area(rings, feature.where)) > 0]
        skipped += len(feature.polygons) - len(areas)
        if not areas:
            continue
        index = _class_index(feature, table, default_class)
        whole = sum(a for a, _ in areas)
        sized += [(whole, _area(index, rings, scale)) for _, rings in areas]
    check_contents(path, table, background, [area.class_index for _, area in sized])
    sized.sort(key=lambda pair: -pair[0])
    return GeoJsonLayout(height, width, background, tuple(area for _, area in sized), skipped)


def _area(index: int, rings: Sequence[np.ndarray], scale: float) -> Area:
    (x0, y0), (x1, y1) = rings[0].min(0) * scale, rings[0].max(0) * scale
    return Area(index, (float(y0), float(x0), float(y1), float(x1)), downward_edges([r * scale for r in rings]))


def _class_index(feature: Feature, table: ClassTable, default_class: int | None) -> int:
    """Find the class by its full name, else by the first part of a derived one ("Tumor: Positive")."""
    name = feature.class_name
    if name is None:
        if default_class is not None:
            return default_class
        raise LayoutError(f"{feature.where}: no class is set; set one in QuPath: {', '.join(table.names)}")
    for candidate in (name, name.split(":")[0]):
        try:
            return table.index(candidate)
        except ConfigError:
            continue
    raise LayoutError(f"{feature.where}: unknown class {name!r}{suggest(name, table.names)}; known: {', '.join(table.names)}")
