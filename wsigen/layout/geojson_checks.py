"""What is wrong with a GeoJSON layout: geometry, extent, units, contents."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsigen.base.classes import ClassTable
from wsigen.base.errors import LayoutError
from wsigen.layout.geojson_features import Feature, Polygon
from wsigen.layout.layout import MAX_SIDE_PX

SMALL_PX = 512
"""A drawing smaller than this cannot be a slide in pixels: it was written in another unit."""


def valid_area(rings: Polygon, where: str) -> float:
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


def check_extent(
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
    x, y = np.max([ring.max(0) for _, ring in drawn], axis=0) * scale
    _check_small(path, float(x), float(y), size)
    height, width = size or (math.ceil(y - 1e-6), math.ceil(x - 1e-6))
    if max(height, width) > MAX_SIDE_PX:
        raise LayoutError(f"{path}: a slide of {width} x {height} px is beyond {MAX_SIDE_PX} px; check --size")
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


def check_contents(path: Path, table: ClassTable, background: int, indices: Sequence[int]) -> None:
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
