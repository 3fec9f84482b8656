"""GeoJSON as QuPath exports it, packed or not -> features: a name, a class name and polygons as arrays."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.errors import LayoutError, refusing

MAX_BYTES = 512 * 2**20
"""The most text that is read, unpacked: a small packed file may hold terabytes."""

_EXPORT = "export the annotations from QuPath with File > Export objects as GeoJSON"

IGNORED = ("Point", "MultiPoint", "LineString", "MultiLineString")
"""Geometries without area: QuPath's points and lines say nothing about where a class is."""

MICROMETRES = ("um", "µm", "μm", *(w + s for w in ("micron", "micrometer", "micrometre") for s in ("", "s")))

MILLIMETRES = ("mm", *(w + s for w in ("millimeter", "millimetre") for s in ("", "s")))

Polygon = list[np.ndarray]
"""Outline, then holes: each float64 ``[n, 2]`` of (x, y), closed."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One annotation.

    Attributes
    ----------
    where : str
        How messages call it: file, position counted from 1, and its name.
    class_name : str or None
        The classification as written, or None.
    polygons : list of Polygon
        Everything of it that has an outline.
    ignored : int
        Points and lines left out.
    """

    where: str
    class_name: str | None
    polygons: list[Polygon]
    ignored: int


def load_json(path: Path) -> Any:
    """Return the parsed JSON of a plain or gzip-packed file.

    Raises
    ------
    LayoutError
        If the file is missing, unreadable, too large, not text or not JSON.
    """
    data = read_start(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise LayoutError(
            f"{path}: more than {MAX_BYTES >> 20} MiB of text, too large for a layout; "
            "export only the annotations, not the detections"
        )
    with refusing(LayoutError, f"{path}: not GeoJSON, for it is not JSON", _EXPORT):
        return json.loads(data.decode("utf-8-sig"))


def read_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, unpacked if it is packed by gzip.

    Raises
    ------
    LayoutError
        If the file is missing or cannot be read.
    """
    if not path.exists():
        raise LayoutError(f"{path}: no such layout file; check the path given to --layout")
    with refusing(LayoutError, f"{path}: cannot be read", "give a GeoJSON file or a label image"), path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            return file.read(count)
        with refusing(LayoutError, f"{path}: the gzip file is damaged", "export or copy it again"), gzip.open(file) as unpacked:
            return unpacked.read(count)


def read_features(data: Any, path: Path) -> list[Feature]:
    """Read a FeatureCollection, a bare list of features, or a single feature or geometry.

    Raises
    ------
    LayoutError
        If ``data`` is none of these, or a feature's geometry cannot be understood.
    """
    items = _items(data, path)
    return [_feature(item, f"{path}: feature {n} of {len(items)}") for n, item in enumerate(items, 1)]


def renamed(features: list[Feature], names: Mapping[str, str | None], path: Path) -> list[Feature]:
    """Give features the classes that ``names`` says, without those it says None of.

    A classification is looked up as written, else by the first part of a derived one ("Tumor: Positive"); "" stands for
    none at all. What ``names`` does not hold stays.

    Raises
    ------
    LayoutError
        If none is left.
    """
    kept = []
    for feature in features:
        written = feature.class_name or ""
        key = next((k for k in (written, written.split(":")[0]) if k in names), None)
        if key is None:
            kept.append(feature)
        elif (name := names[key]) is not None:
            kept.append(replace(feature, class_name=name))
    if features and not kept:
        raise LayoutError(f"{path}: 'names' leaves out every annotation; keep a class, or take the file away")
    return kept


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


def _items(data: Any, path: Path) -> list[Any]:
    if isinstance(data, dict):
        if data.get("type") == "FeatureCollection" and isinstance(data.get("features"), list):
            return data["features"]
        if data.get("type") == "Feature" or _is_geometry(data):
            return [data]
    elif isinstance(data, list) and all(isinstance(item, dict) for item in data):
        return data
    raise LayoutError(f"{path}: JSON, but not GeoJSON (no FeatureCollection, Feature or list of features); {_EXPORT}")


def _is_geometry(item: dict[str, Any]) -> bool:
    return item.get("type") in (*IGNORED, "Polygon", "MultiPolygon", "GeometryCollection")


def _feature(item: Any, where: str) -> Feature:
    if isinstance(item, dict) and _is_geometry(item):
        item = {"type": "Feature", "geometry": item}
    if not isinstance(item, dict) or item.get("type") != "Feature":
        raise LayoutError(f"{where}: not a GeoJSON Feature; export the annotations anew from QuPath")
    properties = item.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    class_name = _class_name(properties.get("classification"))
    called = [repr(s) for s in (properties.get("name"),) if isinstance(s, str) and s]
    called += [f"class {class_name!r}"] if class_name else []
    where += f" ({', '.join(called)})" if called else ""

    polygons: list[Polygon] = []
    ignored = 0
    for geometry in _simple_geometries(item.get("geometry"), where):
        if geometry["type"] in IGNORED:
            ignored += 1
        else:
            polygons.extend(_polygons(geometry, where))
    return Feature(where, class_name, polygons, ignored)


def _class_name(classification: Any) -> str | None:
    """QuPath writes ``{"name": "A: B"}`` (to 0.4) or ``{"names": ["A", "B"]}``; others a plain string."""
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list) and names:
            return ": ".join(str(n) for n in names)
        classification = classification.get("name")
    return classification.strip() or None if isinstance(classification, str) else None


def _simple_geometries(geometry: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield the geometry, or those in a GeometryCollection (which may hold others)."""
    waiting = [geometry]
    while waiting:
        g = waiting.pop()
        if not isinstance(g, dict) or not _is_geometry(g):
            kind = g.get("type") if isinstance(g, dict) else g
            raise LayoutError(f"{where}: geometry {str(kind)[:40]!r} is not known; draw a polygon instead")
        if g["type"] != "GeometryCollection":
            yield g
        elif isinstance(g.get("geometries"), list):
            waiting.extend(reversed(g["geometries"]))


def _polygons(geometry: dict[str, Any], where: str) -> Iterator[Polygon]:
    coordinates = geometry.get("coordinates")
    parts = [coordinates] if geometry["type"] == "Polygon" else coordinates
    if not isinstance(parts, list) or not all(isinstance(rings, list) for rings in parts):
        raise LayoutError(f"{where}: the {geometry['type']} has no coordinates; export it anew from QuPath")
    for rings in parts:
        read = [_ring(ring, where) for ring in rings]
        if read and len(read[0]):
            yield [read[0], *(hole for hole in read[1:] if len(hole))]


def _ring(ring: Any, where: str) -> np.ndarray:
    """Return a closed ring, or an empty one where there are fewer than three points."""
    try:
        points = np.array([position[:2] for position in ring], dtype=np.float64)
        if len(ring) and points.shape != (len(ring), 2):
            raise ValueError(points.shape)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise LayoutError(f"{where}: a position is not a pair of numbers [x, y]; export it anew from QuPath") from None
    if not np.isfinite(points).all():
        raise LayoutError(f"{where}: a coordinate is not finite (NaN or infinite); remove or redraw this polygon")
    points = points.reshape(-1, 2)
    if len(points) and (points[0] != points[-1]).any():
        points = np.concatenate([points, points[:1]])
    return points if len(points) >= 4 else points[:0]
