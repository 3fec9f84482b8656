"""`read_geojson`: annotations drawn in QuPath -> the class of every cell of the slide.

Where annotations overlap the smaller one wins: areas are painted from large to small, so that a nest of
tumour on top of the stroma shows, whatever their order in the file. Of two equal areas the later one wins.

Polygons are filled by the class at every cell's centre. Each crossing of an edge with a row of centres is computed in the
coordinates of the slide, never in those of the box. So a cell gets the same bits whatever box it is read with, which a
rasteriser that first moves the polygon to the box does not promise. Edges run downwards and intervals are half-open: polygons
that share an edge leave no gap and never overlap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, LayoutError, refusing, suggest
from wsigen.base.geometry import Box
from wsigen.layout.geojson_features import Feature, Polygon, declared_unit, load_json, read_features, renamed
from wsigen.layout.layout import MAX_SIDE_PX, Layout

SMALL_PX = 512
"""A drawing smaller than this cannot be a slide in pixels: it was written in another unit."""


MARGIN = 0.02
"""Least margin at the right and bottom of a slide whose size is guessed, as a share of the drawing's longer side."""


@dataclass(frozen=True, slots=True)
class Area:
    """One polygon: its class, its bounds (y0, x0, y1, x1) and its edges, in slide px (`_downward_edges`)."""

    class_index: int
    bounds: tuple[float, float, float, float]
    edges: np.ndarray

    def cells(self, cell_px: int) -> Box:
        """Return a box of cells that holds every centre inside the polygon."""
        y0, x0, y1, x1 = (v / cell_px for v in self.bounds)
        return Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1))


@dataclass(frozen=True, slots=True)
class GeoJsonLayout(Layout):
    """Polygons on a background.

    Attributes
    ----------
    height, width : int
        Size of the slide (px).
    background : int
        Class index outside every polygon.
    areas : tuple of Area
        In the order they are painted: large first.
    ignored : int
        Points, lines and polygons without area that were left out.
    guessed : bool
        Whether the size was guessed from the polygons.
    """

    height: int
    width: int
    background: int
    areas: tuple[Area, ...]
    ignored: int = 0
    guessed: bool = False

    def classes(self, box: Box, cell_px: int) -> np.ndarray:
        """Paint one polygon after the other (`Layout.classes`)."""
        out = np.full(box.shape, self.background, np.uint8)
        for area in self.areas:
            part = area.cells(cell_px).intersect(box)
            if not part.empty:
                out[part.relative_to(box).slices][_inside(area.edges, part, cell_px)] = area.class_index
        return out


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
    table : ClassTable
        The classes that annotations may have; case does not matter.
    size : tuple of int or None
        ``(height, width)`` of the slide (px), or None: it is guessed from the polygons, with equal margins on both sides.
    background : int
        Class index outside every polygon.
    scale : float
        Slide pixels per unit of the file: the um/px the layout was drawn at over that of the slide.
    default_class : int or None
        Class index of polygons without a classification; None makes them an error.
    names : mapping of str to (str or None), optional
        Classification -> name of a class, or None: as if it were not drawn (`geojson_features.renamed`).

    Raises
    ------
    LayoutError
        If the file, a feature or the whole cannot be used: what, where and what to do.
    """
    path = Path(path)
    data = load_json(path)
    with refusing(LayoutError, f"{path}: no GeoJSON that QuPath writes", "export the annotations anew"):
        features = renamed(read_features(data, path), names or {}, path)
    height, width = _check_extent(path, features, size, scale, declared_unit(data))
    sized: list[tuple[float, Area]] = []
    skipped = sum(f.ignored for f in features)
    for feature in features:
        areas = [(a, rings) for rings in feature.polygons if (a := _valid_area(rings, feature.where)) > 0]
        skipped += len(feature.polygons) - len(areas)
        if not areas:
            continue
        index = _class_index(feature, table, default_class)
        whole = sum(a for a, _ in areas)
        sized += [(whole, _area(index, rings, scale)) for _, rings in areas]
    _check_contents(path, table, background, [area.class_index for _, area in sized])
    sized.sort(key=lambda pair: -pair[0])
    return GeoJsonLayout(height, width, background, tuple(area for _, area in sized), skipped, size is None)


def _area(index: int, rings: Sequence[np.ndarray], scale: float) -> Area:
    (x0, y0), (x1, y1) = rings[0].min(0) * scale, rings[0].max(0) * scale
    return Area(index, (float(y0), float(x0), float(y1), float(x1)), _downward_edges([r * scale for r in rings]))


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


def _downward_edges(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Return the edges of all rings of a polygon, upper end first, without the horizontal ones.

    Parameters
    ----------
    rings : list of ndarray
        Outline and holes, each float64 ``[n, 2]`` of (x, y), the last point equal to the first.

    Returns
    -------
    float64 ``[edges, 4]`` of (y0, x0, y1, x1) with y0 < y1.
    """
    parts = [np.concatenate([ring[:-1, ::-1], ring[1:, ::-1]], axis=1) for ring in rings]
    edges = np.concatenate(parts)
    edges = edges[edges[:, 0] != edges[:, 2]]
    upward = edges[:, 0] > edges[:, 2]
    edges[upward] = edges[upward][:, [2, 3, 0, 1]]
    return edges


def _inside(edges: np.ndarray, box: Box, cell_px: int) -> np.ndarray:
    """Return which cells of ``box`` have their centre inside a polygon (even-odd rule).

    Parameters
    ----------
    edges : ndarray
        From `_downward_edges` (slide px).
    box : Box
        In cells of ``cell_px`` slide pixels.

    Returns
    -------
    bool ``[box.height, box.width]``.
    """
    first = np.clip(np.ceil(edges[:, 0] / cell_px - 0.5), box.y0, box.y1).astype(np.int64)
    last = np.clip(np.ceil(edges[:, 2] / cell_px - 0.5), box.y0, box.y1).astype(np.int64)
    count = last - first
    crossing = count > 0
    edges, first, count = edges[crossing], first[crossing], count[crossing]

    which = np.repeat(np.arange(len(edges)), count)
    row = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + first[which]
    y0, x0, y1, x1 = edges[which].T
    x = x0 + ((row + 0.5) * cell_px - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(x / cell_px - 0.5), box.x0, box.x1).astype(np.int64)

    flat = (row - box.y0) * (box.width + 1) + (column - box.x0)
    toggles = np.bincount(flat, minlength=box.height * (box.width + 1)).reshape(box.height, box.width + 1)
    return np.cumsum(toggles[:, :-1], axis=1) % 2 == 1


def _check_extent(
    path: Path, features: Sequence[Feature], size: tuple[int, int] | None, scale: float, unit: str | None
) -> tuple[int, int]:
    """Return ``(height, width)`` of the slide after checking that every polygon lies on it.

    One pixel beyond the edge is tolerated: QuPath rounds.

    Raises
    ------
    LayoutError
        If there is no polygon, one lies outside, the sizes are absurd, or the coordinates are no pixels.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise LayoutError(f"{path}: scale {scale} is not a positive number; check --layout-mpp")
    drawn = [(f, rings[0]) for f in features for rings in f.polygons]
    if not drawn:
        left = sum(f.ignored for f in features)
        kind = f"only {left} points or lines" if left else f"{len(features)} features"
        raise LayoutError(f"{path}: no polygons ({kind}); draw areas in QuPath and set their classes")
    if unit is not None and scale == 1.0:
        raise LayoutError(f"{path}: the file says its coordinates are in {unit}, not pixels; {_remedy(unit)}")
    for feature, ring in drawn:
        _check_outline(feature, ring * scale, size, max(1.0, scale))
    low = np.min([ring.min(0) for _, ring in drawn], axis=0) * scale
    high = np.max([ring.max(0) for _, ring in drawn], axis=0) * scale
    _check_small(path, float(high[0]), float(high[1]), size)
    height, width = size or _guessed_size(low, high)
    if max(height, width) > MAX_SIDE_PX:
        raise LayoutError(f"{path}: a slide of {width} x {height} px is beyond {MAX_SIDE_PX} px; check --size")
    return height, width


def _guessed_size(low: np.ndarray, high: np.ndarray) -> tuple[int, int]:
    """Guess ``(height, width)`` of the image behind a drawing between ``low`` and ``high``, (x, y) in slide px.

    Its left and top margins come again at the right and bottom, and are at least `MARGIN` there, so that no tissue is cut.
    A drawing that begins in the image's corner is taken to fill it.
    """
    least = MARGIN * (high - low).max() if low.max() >= 1 else 0.0
    width, height = (math.ceil(v - 1e-6) for v in high + np.maximum(low, least))
    return height, width


def _check_outline(feature: Feature, ring: np.ndarray, size: tuple[int, int] | None, slack: float) -> None:
    (x0, y0), (x1, y1) = ring.min(0), ring.max(0)
    spans = f"x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}"
    if min(x0, y0) < -slack:
        raise LayoutError(f"{feature.where}: out of range, {spans}: left of or above 0; move or clip the polygon")
    if size is not None and (x1 > size[1] + slack or y1 > size[0] + slack):
        raise LayoutError(
            f"{feature.where}: out of range, {spans}, but the slide is {size[1]} x {size[0]} px; "
            "clip the polygon, raise --size, or give --layout-mpp if it was drawn at another um/px"
        )
    if max(x1, y1) > MAX_SIDE_PX:
        raise LayoutError(
            f"{feature.where}: {spans} is beyond {MAX_SIDE_PX} px, larger than any slide; "
            "check the coordinates or give --layout-mpp"
        )


def _check_small(path: Path, x: float, y: float, size: tuple[int, int] | None) -> None:
    """Refuse drawings too small for pixels; with a size, only if they fill less than an eighth of it."""
    if max(x, y) >= SMALL_PX or (size is not None and 8 * max(x, y) >= min(size)):
        return
    raise LayoutError(
        f"{path}: the whole drawing ends at x={x:.0f}, y={y:.0f}, too small for pixels of a slide "
        f"(at least {SMALL_PX}); coordinates in micrometres? {_remedy('um')}"
    )


def _remedy(unit: str) -> str:
    mpp = "1000" if unit == "mm" else "1"
    return f"give --layout-mpp {mpp} (um per unit of the file) to scale them, or export in pixels"


def _valid_area(rings: Polygon, where: str) -> float:
    """Return the area of a polygon in units of the file, 0 for one that is only a line.

    Raises
    ------
    LayoutError
        If it crosses itself or its holes do not lie inside.
    """
    import shapely

    if shapely.MultiPoint(rings[0]).convex_hull.area == 0:
        return 0.0
    polygon = shapely.Polygon(rings[0], [hole for hole in rings[1:] if _has_area(hole)])
    if not polygon.is_valid:
        reason, place = _explain(shapely.is_valid_reason(polygon))
        raise LayoutError(f"{where}: {reason}{place}; redraw it there in QuPath (brush or wand) and export again")
    return float(polygon.area)


def _has_area(ring: np.ndarray) -> bool:
    import shapely

    return bool(shapely.MultiPoint(ring).convex_hull.area > 0)


def _explain(reason: str) -> tuple[str, str]:
    """Turn ``Self-intersection[10 20]`` into words and a place."""
    match = re.fullmatch(r"(.*?)\s*\[(\S+) (\S+).*\]", reason)
    text, place = (match[1], f" at x={float(match[2]):.0f}, y={float(match[3]):.0f}") if match else (reason, "")
    if "self-intersection" in text.casefold():
        return "the polygon crosses itself", place
    return f"the polygon is not valid ({text.lower()})", place


def _check_contents(path: Path, table: ClassTable, background: int, indices: Sequence[int]) -> None:
    """Refuse a layout without a place for tissue.

    Raises
    ------
    LayoutError
        If no polygon has an area, or all is bare glass.
    """
    if not indices:
        raise LayoutError(f"{path}: the layout is empty, no polygon has an area; draw areas, not lines")
    if all(table[i].background for i in {background, *indices}):
        names = ", ".join(sorted({table[i].name for i in indices}))
        raise LayoutError(f"{path}: the layout is empty, nothing but background ({names}); set a tissue class on some polygon")
