"""`write_drawn`: the polygons of a drawing as they were drawn, for the slide that was made of it.

The annotations of a slide are its class map, whose cells show as stairs when QuPath is zoomed in. These are the outlines that
the class map was made from, with their names and ids, in px of the slide.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.geometry import Box
from wsigen.layout.class_names import ClassNames
from wsigen.layout.geojson_drawn import Drawn, drawn_polygons
from wsigen.layout.geojson_features import read_features
from wsigen.layout.geojson_file import load_json
from wsigen.layout.geojson_shapes import valid_shapes
from wsigen.layout.problems import Problems
from wsigen.storage.files import atomic_path

DECIMALS = 2
"""Of coordinates, px."""

_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "wsigen:drawn")


def write_drawn(
    source: Path,
    target: Path,
    table: ClassTable,
    scale: float = 1.0,
    names: Mapping[str, str | None] | None = None,
    nuclei: str | None = None,
    part: Box | None = None,
) -> int:
    """Write the polygons that the class map was made from, in their order; whole or not at all.

    They are those of one plane with a class of the model, mended where they were; what has no area is left out.

    Parameters
    ----------
    source : Path
        GeoJSON that `wsigen.layout.geojson.read_geojson` has read without a fault.
    scale : float
        Slide px per unit of the file.
    names : mapping of str to (str or None), optional
        Classification -> name of a class, or None: as if it were not drawn.
    nuclei : str, optional
        Class of the nuclei of QuPath's cells, which are objects of their own; by default they are left out.
    part : Box, optional
        The part of the drawing that the slide shows, px: coordinates count from its corner, and what lies outside is left out.

    Returns
    -------
    int
        How many objects were written.
    """
    data, _ = load_json(source)
    problems = Problems(source)
    features = read_features(data, source, problems, nuclei is not None)
    drawn, _ = drawn_polygons(features, ClassNames(table, names), None if nuclei is None else table.index(nuclei), problems)
    shapes, _ = valid_shapes([d.rings for d in drawn], [d.where for d in drawn], problems, scale)
    count = 0
    with atomic_path(target) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for _, several in groupby(shapes, key=lambda shape: (id(drawn[shape.source].feature), drawn[shape.source].nucleus)):
            of_one = list(several)
            polygons = [[ring * scale for ring in shape.rings] for shape in of_one]
            if part is not None:
                polygons = [[ring - (part.x0, part.y0) for ring in rings] for rings in polygons if _meets(rings[0], part)]
            if not polygons:
                continue
            count += 1
            of = drawn[of_one[0].source]
            content = _content(of, polygons, table[of.class_index], count)
            file.write(("\n" if count == 1 else ",\n") + json.dumps(content, ensure_ascii=False, separators=(",", ":")))
        file.write("\n]}\n")
    return count


def _meets(outline: NDArray[np.float64], part: Box) -> bool:
    """Whether the bounds of an outline, (x, y) in px, meet a box."""
    (x0, y0), (x1, y1) = outline.min(0), outline.max(0)
    return bool(x0 < part.x1 and x1 > part.x0 and y0 < part.y1 and y1 > part.y0)


def _content(drawn: Drawn, outlines: list[list[NDArray[np.float64]]], tissue: TissueClass, number: int) -> dict[str, Any]:
    """One object as QuPath reads it; ids that are none, and those of nuclei, are made from what was drawn."""
    polygons = [[ring.round(DECIMALS).tolist() for ring in rings] for rings in outlines]
    single = len(polygons) == 1
    own = None if drawn.nucleus else drawn.feature.id
    name = None if drawn.nucleus else drawn.feature.name
    return {
        "type": "Feature",
        "id": _id(own, polygons),
        "geometry": {"type": "Polygon" if single else "MultiPolygon", "coordinates": polygons[0] if single else polygons},
        "properties": {
            "objectType": "annotation",
            "name": name or f"{tissue.name} {number}",
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
