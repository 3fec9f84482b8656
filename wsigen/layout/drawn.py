"""`write_drawn`: the polygons of a drawing as they were drawn, for the slide that was made of it.

The annotations of a slide are its class map, whose cells show as stairs when QuPath is zoomed in. These are the outlines that
the class map was made from, with their names and ids, in px of the slide.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.layout.class_names import ClassNames
from wsigen.layout.geojson_features import Feature, read_features
from wsigen.layout.geojson_file import load_json
from wsigen.layout.problems import Problems
from wsigen.storage.files import atomic_path

DECIMALS = 2
"""Of coordinates, px."""

_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "wsigen:drawn")


def write_drawn(
    source: Path, target: Path, table: ClassTable, scale: float = 1.0, names: Mapping[str, str | None] | None = None
) -> int:
    """Write what of a drawing has an outline and a class of the model, in its order; whole or not at all.

    Parameters
    ----------
    source : Path
        GeoJSON that `wsigen.layout.geojson.read_geojson` has read without a fault.
    scale : float
        Slide px per unit of the file.
    names : mapping of str to (str or None), optional
        Classification -> name of a class, or None: as if it were not drawn.

    Returns
    -------
    int
        How many objects were written.
    """
    data, _ = load_json(source)
    known = ClassNames(table, names)
    count = 0
    with atomic_path(target) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for feature in read_features(data, source, Problems(source)):
            index = known.find(feature.class_name)
            if feature.polygons and isinstance(index, int):
                count += 1
                content = _content(feature, table[index], scale, count)
                file.write(("\n" if count == 1 else ",\n") + json.dumps(content, ensure_ascii=False, separators=(",", ":")))
        file.write("\n]}\n")
    return count


def _content(feature: Feature, tissue: TissueClass, scale: float, number: int) -> dict[str, Any]:
    """One object as QuPath reads it; ids that are none are made from what was drawn."""
    polygons = [[(ring * scale).round(DECIMALS).tolist() for ring in rings] for rings in feature.polygons]
    single = len(polygons) == 1
    return {
        "type": "Feature",
        "id": _id(feature.id, polygons),
        "geometry": {"type": "Polygon" if single else "MultiPolygon", "coordinates": polygons[0] if single else polygons},
        "properties": {
            "objectType": "annotation",
            "name": feature.name or f"{tissue.name} {number}",
            "classification": {"name": tissue.name, "color": list(tissue.color)},
            "isLocked": True,
            "metadata": {"source": "wsigen", "synthetic": "true", "drawn": "true"},
        },
    }


def _id(text: str | None, polygons: list[Any]) -> str:
    try:
        return str(uuid.UUID(text or ""))
    except ValueError:
        return str(uuid.uuid5(_IDS, json.dumps([text, polygons])))
