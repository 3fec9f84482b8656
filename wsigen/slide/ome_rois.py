"""Annotations as ROIs of OME-XML: OMERO shows them, QuPath 0.6 and later imports them with an image for a project.

QuPath takes an ROI's name, outline and lock, not its class. Polygons of OME have no holes: a region with holes is cut into
pieces without, which QuPath unites again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsigen.slide.class_picture import class_of

MOST_CORNERS = 500_000
"""Of all ROIs together: about 6 MB of XML, which every program that opens the slide reads before it shows a pixel."""

ROI, SHAPE = "ROI:wsigen-", "Shape:wsigen-"
"""How the identifiers of annotations of ours begin: nobody else's do."""

Ring = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Roi:
    """An annotation.

    Attributes
    ----------
    name, class_name : str
        As QuPath shows them.
    color : tuple of int
        RGB of the class.
    outlines : tuple of rings
        Polygons ``[x, y]`` in px without holes, that do not overlap.
    """

    name: str
    class_name: str
    color: tuple[int, int, int]
    outlines: tuple[Ring, ...]


def read_rois(annotations: str | os.PathLike[str]) -> tuple[Roi, ...]:
    """Return the annotations that lie beside a slide (`wsigen.slide.sidecars.write_annotations`) as ROIs.

    Raises
    ------
    TooManyRoisError
        If they have more than `MOST_CORNERS` corners; the file is not read any further.
    """
    return rois_of(_features(Path(annotations)))


def rois_of(features: Iterable[Mapping[str, Any]]) -> tuple[Roi, ...]:
    """Return those features of GeoJSON that have an area as ROIs (TooManyRoisError)."""
    rois, corners = [], 0
    for feature in features:
        outlines: list[Ring] = []
        for rings in _polygons(feature):
            corners += sum(map(len, rings))
            if corners > MOST_CORNERS:
                raise TooManyRoisError
            pieces = list(_without_holes(rings))
            corners += sum(map(len, pieces)) - sum(map(len, rings))
            outlines += pieces
        if outlines:
            name, colour = class_of(feature)
            rois.append(Roi(str((feature.get("properties") or {}).get("name") or name), name, colour, tuple(outlines)))
    return tuple(rois)


def _polygons(feature: Mapping[str, Any]) -> Sequence[Sequence[Ring]]:
    """The rings of each polygon of a feature."""
    geometry = feature.get("geometry") or {}
    kinds = {"Polygon": lambda rings: [rings], "MultiPolygon": list}
    return kinds[geometry["type"]](geometry["coordinates"]) if geometry.get("type") in kinds else []


class TooManyRoisError(Exception):
    """The annotations would make the OME-XML too large."""


def _features(path: Path) -> Iterator[dict[str, Any]]:
    """The features of a file that has one on each line."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            text = line.strip().rstrip(",")
            if text.startswith('{"type":"Feature",'):
                yield json.loads(text)


def _without_holes(rings: Sequence[Ring]) -> Iterator[Ring]:
    """Cut a polygon (outline, then holes) through its middle hole, until no piece has any."""
    from shapely import force_2d, make_valid
    from shapely.geometry import Polygon, box

    drawn = force_2d(Polygon(rings[0], rings[1:]))
    waiting = [drawn] if not drawn.interiors or drawn.is_valid else _areas(make_valid(drawn))
    while waiting:
        polygon = waiting.pop()
        if not polygon.interiors:
            yield list(polygon.exterior.coords)
            continue
        left, top, right, bottom = polygon.bounds
        upright = bottom - top > right - left
        middles = sorted((hole.bounds[upright] + hole.bounds[2 + upright]) / 2 for hole in polygon.interiors)
        middle = middles[len(middles) // 2]
        halves = (
            (box(left, top, right, middle), box(left, middle, right, bottom))
            if upright
            else (box(left, top, middle, bottom), box(middle, top, right, bottom))
        )
        for half in halves:
            waiting += _areas(polygon.intersection(half))


def _areas(geometry: Any) -> list[Any]:
    """The polygons of a geometry of any kind."""
    from shapely import get_parts

    return [piece for part in get_parts(geometry) for piece in get_parts(part) if piece.geom_type == "Polygon"]
