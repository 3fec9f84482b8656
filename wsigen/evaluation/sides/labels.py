"""The classes of a slide from the GeoJSON beside it, real or synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import EvaluationError
from wsigen.base.geometry import Box
from wsigen.layout.geojson import read_geojson
from wsigen.layout.geojson_features import load_json, read_features
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

    def shares(self, box: Box) -> dict[str, float]:
        """Share of a box of full-resolution pixels that each class covers; what nobody labelled is left out."""
        cell = max(1, min(box.height, box.width) // _CELLS)
        cells = Box(box.y0 // cell, box.x0 // cell, -(-box.y1 // cell), -(-box.x1 // cell))
        found = self.layout.class_map(cells, cell)
        counts = np.bincount(found.ravel(), minlength=len(self.table))[: len(self.table)] / found.size
        return {c.name: float(n) for c, n in zip(self.table, counts, strict=True) if n and c.name != UNLABELLED}

    def class_of(self, box: Box) -> str | None:
        """The class that covers more than half of a box of full-resolution pixels, or None."""
        return next((name for name, share in self.shares(box).items() if share > MAJORITY), None)

    def mask(self, box: Box, canvas: tuple[int, int], names: Sequence[str]) -> NDArray[np.uint8]:
        """Classes of every pixel of a box of the slide resized to ``canvas`` px.

        Returns
        -------
        uint8 ``[box.height, box.width]``, positions in ``names`` (case aside) or `classes.UNKNOWN`; half a pixel off at most.
        """
        scales = self.layout.height / canvas[0], self.layout.width / canvas[1]
        cell = max(1, int(min(scales)))
        spans = (box.y0, box.y1), (box.x0, box.x1)
        rows, columns = (
            ((np.arange(*span) + 0.5) * scale / cell).astype(np.int64) for span, scale in zip(spans, scales, strict=True)
        )
        cells = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        found = self.layout.class_map(cells, cell)[np.ix_(rows - cells.y0, columns - cells.x0)]
        positions = np.full(UNKNOWN + 1, UNKNOWN, np.uint8)
        folded = [n.casefold() for n in names]
        for index, tissue in enumerate(self.table):
            if tissue.name.casefold() in folded:
                positions[index] = folded.index(tissue.name.casefold())
        return positions[found]


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
