"""Outlines as people draw them -> valid polygons: what crosses itself by a pixel is mended, what is ambiguous is refused.

Also which polygons cannot be seen, as smaller ones of other classes lie on all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.layout.polygons import Rings
from wsigen.layout.problems import Problems

UNSURE_SHARE, UNSURE_AREA = 0.01, 16.0
"""What the ways to read an outline that crosses itself may differ in: so much of its area, or so many square px of what it was
drawn on."""

COARSEST = 32.0
"""Slide px that such a px may be, at most: units of a file that are larger, such as mm, are no pixels and have decimals."""

PAIRS_AT_ONCE, MOST_PAIRS = 2**21, 2**19
"""Of polygons, or edges, that lie near each other: looked at together, and in all."""


MOST_NEAR = 20
"""Edges near each edge of an outline that can be mended, in the mean: along a contour there are three. Likewise of polygons."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A valid polygon.

    Attributes
    ----------
    source : int
        Position of the polygon it was read from.
    rings : Rings
        Its outline and holes.
    polygon : shapely.Polygon
        The same for shapely.
    area : float
        In square units of the file.
    """

    source: int
    rings: Rings
    polygon: Any
    area: float


@dataclass(frozen=True, slots=True)
class Mended:
    """How many outlines were mended, by how much their areas changed (square units of the file), and how many have no area."""

    count: int = 0
    changed: float = 0.0
    flat: int = 0


def drawn_px(scale: float) -> float:
    """Slide px that a px of the image is which a file was drawn on, with so many slide px per unit of the file; 1 at least."""
    return min(max(1.0, scale), COARSEST)


def valid_shapes(
    polygons: Sequence[Rings], places: Sequence[str], problems: Problems, scale: float = 1.0
) -> tuple[list[Shape], Mended]:
    """Return polygons that cover the same area and cross nothing; lines that go back on themselves have none.

    Parameters
    ----------
    polygons : sequence of Rings
        As drawn.
    places : sequence of str
        What messages call each.
    problems : Problems
        Gets those that can be read in two ways: parts that are wound around twice, holes outside of their outline.
    scale : float
        Slide px per unit of the file.
    """
    import shapely

    unsure = UNSURE_AREA * min(1.0, COARSEST / scale) ** 2
    drawn = _as_shapely(polygons)
    areas, valid = shapely.area(drawn), shapely.is_valid(drawn)
    shapes: list[Shape] = []
    count, changed, flat = 0, 0.0, 0
    for source, rings in enumerate(polygons):
        if valid[source]:
            shapes.append(Shape(source, rings, drawn[source], float(areas[source])))
            continue
        mended = _mended(drawn[source], unsure)
        if mended is None:
            cause, place = _explain(shapely.is_valid_reason(drawn[source]))
            problems.add(
                f"{cause}{place}, so that it can be read in two ways",
                "redraw it there in QuPath (brush or wand) and export again",
                places[source],
                cause,
            )
        elif mended.area == 0:
            flat += 1
        else:
            parts = [part for part in shapely.get_parts(mended) if part.geom_type == "Polygon" and part.area > 0]
            shapes += [Shape(source, _rings(part), part, float(part.area)) for part in parts]
            count, changed = count + 1, changed + abs(mended.area - abs(float(areas[source])))
    return shapes, Mended(count, changed, flat)


def hidden_shapes(shapes: Sequence[Shape], classes: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Return which of some shapes, in the order they are painted, later ones of other classes cover entirely.

    None if so many overlap that it would take too long to find out.
    """
    import shapely

    polygons = np.array([shape.polygon for shape in shapes], object)
    tree, inner = shapely.STRtree(polygons), shapely.point_on_surface(polygons)
    step, pairs = max(1, PAIRS_AT_ONCE // max(1, len(polygons))), 0
    touched = [np.zeros((2, 0), np.int64)]
    for start in range(0, len(polygons), step):
        lower, upper = tree.query(inner[start : start + step])
        lower += start
        pairs += len(lower)
        if pairs > MOST_PAIRS + MOST_NEAR * len(polygons):
            return None
        # A shape can only be covered if the point in it is: this leaves few of a hundred thousand.
        lower, upper = _later(lower, upper, classes)
        touched.append(np.stack([lower, upper])[:, shapely.intersects(polygons[upper], inner[lower])])
    lower, upper = np.concatenate(touched, axis=1)
    by_one = np.unique(lower[shapely.covers(polygons[upper], polygons[lower])])
    by_several = [i for i in np.setdiff1d(lower, by_one) if _covered(int(i), polygons, classes, tree)]
    return np.union1d(by_one, np.array(by_several, np.int64))


def _later(
    lower: NDArray[np.int64], upper: NDArray[np.int64], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of which the second is painted later, and is of another class."""
    later = (upper > lower) & (classes[upper] != classes[lower])
    return lower[later], upper[later]


def _covered(which: int, polygons: Any, classes: NDArray[np.uint8], tree: Any) -> bool:
    """Whether later polygons of other classes cover one together."""
    import shapely

    near = tree.query(polygons[which])
    _, near = _later(np.full(len(near), which), near, classes)
    area = polygons[which].area
    if shapely.area(polygons[near]).sum() < area:
        return False
    near = near[shapely.intersects(polygons[near], polygons[which])]
    return bool(polygons[which].difference(shapely.union_all(polygons[near])).area < 1e-9 * area)


def _as_shapely(polygons: Sequence[Rings]) -> Any:
    """An array of shapely polygons, made at once."""
    import shapely

    rings = [ring for polygon in polygons for ring in polygon]
    if not rings:
        return np.zeros(0, object)
    lengths = [len(ring) for ring in rings]
    lines = shapely.linearrings(np.concatenate(rings), indices=np.repeat(np.arange(len(rings)), lengths))
    return shapely.polygons(lines, indices=np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons]))


def _mended(polygon: Any, most: float) -> Any:
    """The area inside an outline that crosses itself, without its holes; None if it is not clear what is inside.

    ``most``: how far the ways to read it may differ, square units of the file.
    """
    import shapely

    if _is_tangled(polygon):
        return None
    outline = _filled(polygon.exterior)
    crossed = shapely.make_valid(shapely.Polygon(polygon.exterior))  # counts what is wound around twice as outside
    holes = shapely.union_all([_filled(hole) for hole in polygon.interiors])
    unsure = max(abs(outline.area - crossed.area), holes.difference(outline).area)
    return None if unsure > max(UNSURE_SHARE * outline.area, most) else outline.difference(holes)


def _is_tangled(polygon: Any) -> bool:
    """Whether edges cross so often that no person drew it; to mend it would take hours."""
    import shapely

    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    edges = shapely.linestrings(np.concatenate([np.stack([ring[:-1], ring[1:]], 1) for ring in rings]))
    tree = shapely.STRtree(edges)
    step, pairs = max(1, PAIRS_AT_ONCE // len(edges)), 0
    for start in range(0, len(edges), step):
        asked = edges[start : start + step]
        pairs += tree.query(asked).shape[1]
        if pairs > MOST_NEAR * (start + len(asked)) + 1000:
            return True
    return False


def _filled(ring: Any) -> Any:
    """All that a ring winds around."""
    import shapely

    return shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False)


def _rings(polygon: Any) -> Rings:
    import shapely

    return [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]


def _explain(reason: str) -> tuple[str, str]:
    """Turn ``Self-intersection[10 20]`` into words and a place."""
    match = re.fullmatch(r"(.*?)\s*\[(\S+) (\S+).*\]", reason)
    text, place = (match[1], f" at x={float(match[2]):.0f}, y={float(match[3]):.0f}") if match else (reason, "")
    if "self-intersection" in text.casefold():
        return "the polygon crosses itself", place
    return f"the polygon is not valid ({text.lower()})", place
