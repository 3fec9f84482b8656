"""Parsed GeoJSON -> features as QuPath means them: an object's kind, name, class, plane and polygons."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from wsigen.base.errors import LayoutError
from wsigen.layout.geojson_file import EXPORT
from wsigen.layout.long_json import LongList
from wsigen.layout.polygons import Rings
from wsigen.layout.problems import Problems

WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
"""Geometries that say nothing about where a class is: QuPath's points and lines."""

MICROMETRES = ("um", "µm", "μm", *(w + s for w in ("micron", "micrometer", "micrometre") for s in ("", "s")))

MILLIMETRES = ("mm", *(w + s for w in ("millimeter", "millimetre") for s in ("", "s")))

KINDS = {"annotation": "annotation", "detection": "detection", "cell": "cell", "tile": "tile", "tmacore": "TMA core"}
"""QuPath's kinds of objects, and how messages call them."""

MOST_RINGS = 2**17
"""Outlines and holes of a geometry; each takes 200 bytes, and maybe 20 in the file."""

_NO_POINTS = np.empty((0, 2))
_END = object()

MOST_MISREAD = 1000
"""Features that cannot be understood: then the rest of a file is not looked at."""

Plane = tuple[int, int]
"""Position in a z-stack and in time."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One object.

    Attributes
    ----------
    where : str
        How messages call it: its position counted from 1, and its name.
    kind : str
        One of the values of `KINDS`.
    class_name : str or None
        The classification as written, of a derived one all parts ("Tumor: Positive"), or None.
    polygons : list of Rings
        Everything of it that has an outline.
    without_area : int
        Points and lines of it.
    plane : tuple of int
        (z, t) it was drawn on.
    nucleus : list of Rings or None
        The outlines of a cell's nucleus, empty if they are not asked for; None if it has none.
    id, name : str or None
        As its file says.
    """

    where: str
    kind: str
    class_name: str | None
    polygons: list[Rings]
    without_area: int
    plane: Plane
    nucleus: list[Rings] | None
    id: str | None = None
    name: str | None = None


def read_features(data: Any, path: Path, problems: Problems, nuclei: bool = False) -> list[Feature]:
    """Read a FeatureCollection, a bare list of features, or a single feature or geometry.

    Objects inside others, as QuPath writes a hierarchy, follow them. A feature that cannot be understood goes to ``problems``.

    Raises
    ------
    LayoutError
        If ``data`` is none of these.
    """
    features: list[Feature] = []
    alike: dict[Hashable, Feature] = {}
    misread = 0
    for n, item in enumerate(_flat(_items(data, path)), 1):
        try:
            feature = _feature(item, f"feature {n}", nuclei)
        except _MisreadError as fault:
            problems.add(fault.cause, fault.remedy, fault.where)
            misread += 1
            if misread == MOST_MISREAD:
                break
        else:
            features.append(feature if feature.polygons or feature.nucleus else alike.setdefault(_told(feature), feature))
    return _finite(features, problems)


def declared_unit(data: Any) -> str | None:
    """Return the unit of length the file says its coordinates have (``um``, ``mm``), or None for pixels."""
    if not isinstance(data, dict):
        return None
    crs = data.get("crs")
    inner = crs.get("properties") if isinstance(crs, dict) else None
    properties = data.get("properties")
    texts = [data.get("unit"), data.get("units"), crs]
    for holder in (properties, crs, inner):
        texts += [holder.get("unit"), holder.get("units")] if isinstance(holder, dict) else []
    texts += [inner.get("name")] if isinstance(inner, dict) else []
    for text in texts:
        word = text.strip().casefold() if isinstance(text, str) else ""
        if word in MICROMETRES:
            return "um"
        if word in MILLIMETRES:
            return "mm"
    return None


class _MisreadError(Exception):
    """A feature that cannot be understood: where, why, and what to do."""

    def __init__(self, where: str, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.where, self.cause, self.remedy = where, cause, remedy


def _items(data: Any, path: Path) -> Iterable[Any]:
    if isinstance(data, dict):
        if data.get("type") == "FeatureCollection" and isinstance(data.get("features"), list | LongList):
            return cast(Iterable[Any], data["features"])
        if data.get("type") == "Feature" or _is_geometry(data):
            return [data]
    elif isinstance(data, list | LongList) and isinstance(next(iter(data), {}), dict):
        return data
    raise LayoutError(f"{path}: JSON, but not GeoJSON (no FeatureCollection, Feature or list of features); {EXPORT}")


def _told(feature: Feature) -> Hashable:
    """What counts of an object without any outline; a file may hold millions that are alike."""
    return feature.kind, feature.class_name, feature.without_area, feature.plane, feature.nucleus is None


def _flat(items: Iterable[Any]) -> Iterator[Any]:
    """Put the objects in ``childObjects`` behind the one that holds them; a list may stand for its features."""
    waiting = [iter(items)]
    while waiting:
        for item in waiting[-1]:
            yield item
            properties = item.get("properties") if isinstance(item, dict) else None
            children = properties.get("childObjects", properties.get("children")) if isinstance(properties, dict) else None
            if isinstance(children, list | LongList):
                waiting.append(child for child in children if isinstance(child, dict))
                break
        else:
            waiting.pop()


def _finite(features: list[Feature], problems: Problems) -> list[Feature]:
    """Those whose coordinates are finite numbers; all are looked at together, as almost always all are."""
    rings = [ring for feature in features for polygon in _all(feature) for ring in polygon]
    if not rings or np.isfinite(np.concatenate(rings)).all():
        return features
    good = []
    for feature in features:
        if all(np.isfinite(ring).all() for polygon in _all(feature) for ring in polygon):
            good.append(feature)
        else:
            problems.add("a coordinate is not finite (NaN or infinite)", "remove or redraw this polygon", feature.where)
    return good


def _all(feature: Feature) -> list[Rings]:
    return feature.polygons + (feature.nucleus or [])


def _is_geometry(item: dict[str, Any]) -> bool:
    return item.get("type") in (*WITHOUT_AREA, "Polygon", "MultiPolygon", "GeometryCollection")


def _feature(item: Any, where: str, nuclei: bool) -> Feature:
    if isinstance(item, dict) and _is_geometry(item):
        item = {"type": "Feature", "geometry": item}
    if not isinstance(item, dict) or item.get("type") != "Feature":
        raise _MisreadError(where, "not a GeoJSON Feature", "export the annotations anew from QuPath")
    properties = item.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    class_name = _class_name(properties.get("classification"))
    called = [repr(s) for s in (properties.get("name"),) if isinstance(s, str) and s]
    called += [f"class {class_name!r}"] if class_name else []
    where += f" ({', '.join(called)})" if called else ""

    geometry = item.get("geometry")
    polygons, without_area = _outlines(geometry, where)
    inner, nucleus = item.get("nucleusGeometry"), None
    if inner is not None:
        nucleus = _outlines(inner, f"the nucleus of {where}")[0] if nuclei else []
    plane = _plane(geometry or inner)
    named = (value if isinstance(value, str) and value else None for value in (item.get("id"), properties.get("name")))
    return Feature(where, _kind(item, properties), class_name, polygons, without_area, plane, nucleus, *named)


def _outlines(geometry: Any, where: str) -> tuple[list[Rings], int]:
    """The polygons of a geometry, and how many points and lines it has."""
    polygons: list[Rings] = []
    without_area = 0
    for simple in _simple_geometries(geometry, where) if geometry is not None else ():
        if simple["type"] in WITHOUT_AREA:
            without_area += 1
        else:
            polygons.extend(_polygons(simple, where))
    return polygons, without_area


def _kind(item: dict[str, Any], properties: dict[str, Any]) -> str:
    """QuPath 0.2 wrote the kind as the feature's id: ``PathDetectionObject``."""
    for text in (properties.get("objectType"), properties.get("object_type"), item.get("id")):
        word = text.removeprefix("Path").removesuffix("Object").replace("_", "").casefold() if isinstance(text, str) else ""
        if word in KINDS:
            return KINDS[word]
    return "annotation"


def _class_name(classification: Any) -> str | None:
    """What a classification says, in any of its forms.

    QuPath writes ``{"name": "A"}``, ``{"names": ["A", "B"]}``, to 0.4 ``{"name": "A: B"}`` or ``{"name": "B", "parentClass":
    {...}}``; others a plain string, and geopandas the JSON of these as a string.
    """
    if isinstance(classification, str) and classification.lstrip().startswith("{"):
        try:
            classification = json.loads(classification)
        except (ValueError, RecursionError):
            return classification.strip()
    names: list[str] = []
    while isinstance(classification, dict):
        several = classification.get("names")
        own = several if isinstance(several, list) and several else [classification.get("name")]
        names = [text.strip() for text in map(_text, own) if text.strip()] + names
        classification = classification.get("parentClass")
    names = [_text(classification).strip(), *names]
    return ": ".join(name for name in names if name) or None


def _text(name: Any) -> str:
    return "" if name is None or isinstance(name, dict | list | LongList) else str(name)


def _plane(geometry: Any) -> Plane:
    plane = geometry.get("plane") if isinstance(geometry, dict) else None
    if not isinstance(plane, dict):
        return 0, 0
    z, t = (value if isinstance(value, int) else 0 for value in (plane.get("z"), plane.get("t")))
    return z, t


def _simple_geometries(geometry: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield the geometry, or those in a GeometryCollection (which may hold others)."""
    waiting: list[Iterator[Any]] = [iter([geometry])]
    while waiting:
        if (g := next(waiting[-1], _END)) is _END:
            waiting.pop()
            continue
        if not isinstance(g, dict) or not _is_geometry(g):
            kind = g.get("type") if isinstance(g, dict) else g
            raise _MisreadError(where, f"geometry {str(kind)[:40]!r} is not known", "draw a polygon instead")
        if g["type"] != "GeometryCollection":
            yield g
        else:
            inner = g.get("geometries")
            waiting.append(iter(inner) if isinstance(inner, list | LongList) else iter(()))


def _polygons(geometry: dict[str, Any], where: str) -> Iterator[Rings]:
    coordinates = geometry.get("coordinates")
    parts = [coordinates] if geometry["type"] == "Polygon" else coordinates
    count = 0
    for rings in parts if isinstance(parts, list | LongList) else [None]:
        if not isinstance(rings, list | LongList):
            raise _MisreadError(where, f"the {geometry['type']} has no coordinates", "export it anew from QuPath")
        read = [_ring(ring, where) for ring in islice(rings, MOST_RINGS - count + 1)]
        count += len(read)
        if count > MOST_RINGS:
            many = f"it has more than {MOST_RINGS} outlines and holes"
            raise _MisreadError(where, many, "fill small holes in QuPath, or split it")
        if read and len(read[0]):
            yield [read[0], *(hole for hole in read[1:] if len(hole))]


def _ring(ring: Any, where: str) -> np.ndarray:
    """Return a closed ring, or an empty one where there are fewer than three points."""
    if isinstance(ring, LongList):
        points = np.concatenate([_NO_POINTS, *(_points(batch, where) for batch in ring.batches())])
    else:
        points = ring if isinstance(ring, np.ndarray) else _points(ring, where)
    points = points[:, :2]
    if len(points) and (points[0, 0] != points[-1, 0] or points[0, 1] != points[-1, 1]):
        points = np.concatenate([points, points[:1]])
    return points if len(points) >= 4 else _NO_POINTS


def _points(ring: Any, where: str) -> np.ndarray:
    """Read positions that are not all alike (`geojson_file._packed` has read those)."""
    try:
        points = np.array([position[:2] for position in ring], dtype=np.float64)
        if len(ring) and points.shape != (len(ring), 2):
            raise ValueError(points.shape)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise _MisreadError(where, "a position is not a pair of numbers [x, y]", "export it anew from QuPath") from None
    return points.reshape(-1, 2)
