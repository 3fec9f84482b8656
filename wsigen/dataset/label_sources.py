"""The labels of every image of a dataset: from folders of tiles, GeoJSON files and CSV tables of points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError
from wsigen.dataset.groups import match_name
from wsigen.dataset.images import ImageFile
from wsigen.dataset.labels import Labels, PointLabels, PolygonLabels, WholeLabel
from wsigen.dataset.settings import AnnotatedSource, Columns, DatasetSettings, PointSource
from wsigen.dataset.tables import few, keys, lookup, read_rows

Point = tuple[float, float, int]
"""x and y in px of the image, and the class."""


def label_images(settings: DatasetSettings, files: Sequence[ImageFile]) -> tuple[dict[str, Labels], list[str]]:
    """Return the labels of every image by its name, and notes: which images a table speaks of that the dataset does not have.

    Raises
    ------
    DatasetError
        If a table, an annotation file or a class's name is wrong.
    """
    labels: dict[str, Labels] = {}
    notes: list[str] = []
    for position, source in enumerate(settings.sources):
        of_source = [f for f in files if f.source == position]
        if isinstance(source, PointSource):
            others = [f.name for f in files if f.source != position]
            points, notes_of_table = _points(settings, source, [f.name for f in of_source], others)
            labels |= points
            notes += notes_of_table
        elif isinstance(source, AnnotatedSource):
            labels |= {f.name: _polygons(settings, source, f) for f in of_source}
        else:  # tiles of one class, and images without labels
            labels |= {f.name: WholeLabel(UNKNOWN if f.class_index is None else f.class_index) for f in of_source}
    return labels, notes


def _polygons(settings: DatasetSettings, source: AnnotatedSource, file: ImageFile) -> PolygonLabels:
    folder = file.path.parent if source.annotations is None else settings.root / source.annotations
    stem = file.path.stem
    names = [f"{s}{e}" for s in (stem, stem.removesuffix(".ome")) for e in (".geojson", ".geojson.gz", ".json")]
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        raise DatasetError(f"{file.name}: no {folder / names[0]}; export its annotations there, or list it as unlabelled")
    background = UNKNOWN if source.background is None else settings.table.index(source.background)
    return PolygonLabels(path, settings.table, background, source.names)


def _points(
    settings: DatasetSettings, source: PointSource, names: list[str], others: Sequence[str]
) -> tuple[dict[str, PointLabels], list[str]]:
    """Read the table of one source: labels by image, and notes.

    ``names`` are the source's images, ``others`` those of other sources, which the table may speak of as well.
    """
    path, c, called = settings.root / source.csv, source.columns, _calls(source, names)
    points: dict[str, list[Point]] = {n: [] for n in names}
    strangers, dropped = Counter[str](), 0
    for number, row in enumerate(read_rows(path, (c.image, c.x, c.y, c.label)), 2):
        name = next((n for k in (row[c.image], *keys(row[c.image])) if (n := called.get(k))), None)
        label = source.names.get(row[c.label], row[c.label])
        if name is None:
            strangers[row[c.image]] += 1
        elif label is None:
            dropped += 1
        else:
            points[name].append(_point(settings, c, row, label, f"{path}: line {number}"))
    if not any(points.values()):
        cause = f"'names' leaves out all {dropped} rows of" if dropped else "no row speaks of an image of"
        raise DatasetError(f"{path}: {cause} its source, e.g. {names[0]}; check columns.image, image_pattern and names")
    labels = {}
    for name, of_image in points.items():
        centres = np.array([p[:2] for p in of_image], np.float64).reshape(-1, 2)
        classes = np.array([p[2] for p in of_image], np.uint8)
        labels[name] = PointLabels(f"{path}: {name}", centres, classes, source.radius_px, source.radius_um)
    elsewhere = lookup(others)
    unknown = {name: count for name, count in strangers.items() if not any(k in elsewhere for k in keys(name))}
    note = (
        f"{path}: {sum(unknown.values())} rows speak of {len(unknown)} images its source does not have ({few(list(unknown))}); "
        "they are left out"
    )
    return labels, [note] if unknown else []


def _calls(source: PointSource, names: list[str]) -> Mapping[str, str | None]:
    """What the table may call an image -> its name."""
    if source.image_pattern is None:
        return lookup(names)
    return {match_name(source.image_pattern, n.rsplit("/", 1)[-1], "image_pattern"): n for n in names}


def _point(settings: DatasetSettings, c: Columns, row: Mapping[str, str], label: str, where: str) -> Point:
    try:
        x, y = float(row[c.x]), float(row[c.y])
        if not math.isfinite(x + y):
            raise ValueError(x, y)
    except ValueError:
        raise DatasetError(f"{where}: x={row[c.x]!r}, y={row[c.y]!r} are not numbers; mend or remove the line") from None
    return x, y, settings.class_index(label, where)
