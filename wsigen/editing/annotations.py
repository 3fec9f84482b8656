"""``OUT.geojson`` of an edited slide: regions are cut out of what was drawn before, and put there with their classes."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.classes import ClassTable
from wsigen.base.errors import LayoutError, refusing
from wsigen.layout.geojson_file import load_whole
from wsigen.layout.polygons import PolygonLayout
from wsigen.slide.class_picture import class_of

_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "wsigen:edit")


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations of an edited slide.

    Attributes
    ----------
    features : list of dict
        GeoJSON, px of the slide.
    text : bytes
        The content of their file.
    area_px : dict
        Area of every class, px squared.
    """

    features: list[dict[str, Any]]
    text: bytes
    area_px: dict[str, float]


def shapes_of(layout: PolygonLayout, units_per_px: float = 1.0) -> list[tuple[int, Any]]:
    """Regions as they are seen, ``(class, shapely geometry)`` in px of the slide's file: one that lies on another cuts it.

    Parameters
    ----------
    units_per_px : float
        Px of the file per unit in which the polygons lie.
    """
    from shapely import Polygon, make_valid, transform, unary_union

    p = layout.polygons
    shapes: list[tuple[int, Any]] = []
    for n in range(len(p)):
        points, closing = p.points[p.starts[n] : p.starts[n + 1]], p.closing[p.starts[n] : p.starts[n + 1]]
        rings = np.split(points, np.flatnonzero(closing) + 1)[:-1]
        shape = make_valid(Polygon(rings[0], [ring for ring in rings[1:] if len(ring) > 3]))
        shapes.append((int(p.classes[n]), transform(shape, lambda xy: xy * units_per_px)))
    above = [unary_union([shape for _, shape in shapes[n + 1 :]]) for n in range(len(shapes))]
    seen = [(index, shape.difference(over)) for (index, shape), over in zip(shapes, above, strict=True)]
    return [(index, shape) for index, shape in seen if not shape.is_empty]


def edited_annotations(parent: Path | None, shapes: list[tuple[int, Any]], table: ClassTable, seed: int) -> Annotations:
    """The annotations of an edited slide.

    Parameters
    ----------
    parent : Path or None
        GeoJSON of the slide that was edited; what is no area stays as it is, and so does what the regions do not touch.
    shapes : list of (int, geometry)
        The regions (`shapes_of`). Glass is cut out and not drawn.

    Raises
    ------
    LayoutError
        If the parent's annotations cannot be read, or not be written again.
    """
    from shapely import prepare, unary_union

    anew = unary_union([shape for _, shape in shapes])
    prepare(anew)
    with refusing(LayoutError, f"{parent}: cannot be edited", "export the annotations anew, or give others with --annotations"):
        features = [] if parent is None else features_of(parent)
        kept = [cut for feature in features if (cut := _without(feature, anew)) is not None]
        for number, (index, shape) in enumerate(shapes):
            if not table[index].background:
                kept.append(_feature(table[index].name, list(table[index].color), shape, f"{seed}-{number}"))
        text = json.dumps({"type": "FeatureCollection", "features": kept}, ensure_ascii=False, separators=(",", ":"))
        return Annotations(kept, text.encode() + b"\n", _areas(kept, table))


def features_of(path: Path) -> list[dict[str, Any]]:
    """The features of a GeoJSON file, all that they hold: of a collection, a list, a feature or a geometry (LayoutError)."""
    data = load_whole(path)
    found = data["features"] if isinstance(data, dict) and isinstance(data.get("features"), list) else data
    features = [_as_feature(item) for item in (found if isinstance(found, list) else [found])]
    if any(not isinstance(feature, dict) or feature.get("type") != "Feature" for feature in features):
        raise LayoutError(f"{path}: no GeoJSON that QuPath writes; export the annotations anew")
    return features


def _as_feature(item: Any) -> Any:
    if isinstance(item, dict) and ("coordinates" in item or "geometries" in item):
        return {"type": "Feature", "geometry": item, "properties": {"objectType": "annotation"}}
    return item


def geometries_of(shapes: list[tuple[int, Any]], table: ClassTable) -> list[dict[str, Any]]:
    """Regions for a history: class and GeoJSON geometry of each."""
    return [{"class": table[index].name, "geometry": _rounded(shape)} for index, shape in shapes]


def _without(feature: dict[str, Any], anew: Any) -> dict[str, Any] | None:
    """A feature less what is made anew; None if nothing is left."""
    from shapely import force_2d, make_valid
    from shapely.geometry import shape

    geometry = feature.get("geometry") or {}
    if geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return feature
    area = make_valid(force_2d(shape(geometry)))
    if not anew.intersects(area):
        return feature
    left = area.difference(anew)
    if left.area < 1.0:
        return None
    properties = {k: v for k, v in (feature.get("properties") or {}).items() if k != "measurements"}  # of the area it had
    return {**feature, "geometry": _rounded(left), "properties": properties}


def _rounded(area: Any) -> dict[str, Any]:
    """GeoJSON of the areas of a geometry, to a hundredth of a px."""
    from shapely import MultiPolygon, get_parts, set_precision
    from shapely.geometry import mapping

    parts = [part for part in get_parts(set_precision(area, 0.01)) if part.geom_type == "Polygon" and not part.is_empty]
    return dict(json.loads(json.dumps(mapping(parts[0] if len(parts) == 1 else MultiPolygon(parts)))))


def _feature(name: str, color: list[int], area: Any, key: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_IDS, f"{key} {area.wkt}")),
        "geometry": _rounded(area),
        "properties": {
            "objectType": "annotation",
            "name": f"{name}, made anew",
            "classification": {"name": name, "color": color},
            "isLocked": True,
            "metadata": {"source": "wsigen edit", "synthetic": "true"},
        },
    }


def _areas(features: list[dict[str, Any]], table: ClassTable) -> dict[str, float]:
    from shapely.geometry import shape

    areas = {tissue.name: 0.0 for tissue in table if not tissue.background}
    for feature in features:
        name, _ = class_of(feature)
        geometry = feature.get("geometry") or {}
        if name in areas and geometry.get("type") in ("Polygon", "MultiPolygon"):
            areas[name] += round(shape(geometry).area, 2)
    return areas
