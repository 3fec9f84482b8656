"""The classes of a slide from the GeoJSON beside it, real or synthetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsigen.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.errors import EvaluationError
from wsigen.geometry import Box
from wsigen.layout.geojson import read_geojson
from wsigen.layout.geojson_features import read_features
from wsigen.layout.geojson_file import load_json
from wsigen.layout.layout import Layout

UNLABELLED = "(no annotation)"
"""Class of what no annotation covers."""

MAJORITY = 0.5
"""A crop has the class that covers more than this share of it."""

_CELLS = 16
"""A crop is looked at on so many cells a side."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Classes by place.

    Attributes
    ----------
    layout:
        In pixels of the full resolution; places nobody labelled are `UNLABELLED` or `classes.UNKNOWN`.
    table:
        The classes, and perhaps `UNLABELLED`.
    """

    layout: Layout
    table: ClassTable

    def class_of(self, box: Box) -> str | None:
        """The class that covers most of a box of full-resolution pixels, or None where none does."""
        cell = max(1, min(box.height, box.width) // _CELLS)
        cells = Box(box.y0 // cell, box.x0 // cell, -(-box.y1 // cell), -(-box.x1 // cell))
        counts = np.bincount(self.layout.class_map(cells, cell).ravel(), minlength=len(self.table))
        best = int(counts.argmax())
        if counts[best] <= MAJORITY * counts.sum() or best == UNKNOWN:
            return None
        found = self.table[best].name
        return None if found == UNLABELLED else found


def base_name(slide: Path) -> str:
    """Name of a slide without its suffixes: files beside it begin with it."""
    name = slide.name
    for suffix in (".ome.tiff", ".ome.tif"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return slide.stem


def read_labels(slide: Path, size: tuple[int, int]) -> Labels | None:
    """Read ``X.geojson`` (or ``.geojson.gz``) beside ``X.ome.tiff``.

    Parameters
    ----------
    size:
        ``(height, width)`` of the slide, px.

    Raises
    ------
    LayoutError
        If the file is there and cannot be used.
    """
    base = base_name(slide)
    found = [p for p in (slide.with_name(f"{base}{s}") for s in (".geojson", ".geojson.gz")) if p.is_file()]
    return labels_of(found[0], size) if found else None


def labels_of(path: Path, size: tuple[int, int]) -> Labels | None:
    """Read the classes of a GeoJSON file; None if it names none.

    Parameters
    ----------
    size:
        ``(height, width)`` of what it was drawn on, px.

    Raises
    ------
    LayoutError
        If the file cannot be used.
    """
    features = read_features(load_json(path), path)
    names = list({f.class_name.casefold(): f.class_name for f in features if f.class_name}.values())
    if not names:
        return None
    if len(names) > 200:
        raise EvaluationError(f"{path}: {len(names)} classes; these are no tissue classes")
    table = ClassTable((*(TissueClass(n, (0, 0, 0)) for n in names), TissueClass(UNLABELLED, (255, 255, 255), True)))
    none = len(names)
    return Labels(read_geojson(path, table, size, none, default_class=none), table)
