"""CSV tables of labelled points or spots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from wsigen.base.errors import DatasetError
from wsigen.dataset.discovery import class_index
from wsigen.dataset.groups import match_name
from wsigen.dataset.labels import PointLabels
from wsigen.dataset.settings import Columns, DatasetSettings, PointSource
from wsigen.dataset.tables import few, keys, lookup, read_rows

Point = tuple[float, float, int]
"""x and y in px of the image, and the class."""


def read_points(
    settings: DatasetSettings, source: PointSource, names: list[str], others: Iterable[str] = ()
) -> tuple[dict[str, PointLabels], list[str]]:
    """Read the points of one source.

    Parameters
    ----------
    names, others:
        The source's images, and those of other sources, which the table may speak of as well.

    Returns
    -------
    labels : by image's name; the radius still as the source says it
    notes : which images the table speaks of that the dataset does not have

    Raises
    ------
    DatasetError
        If a column is missing, a number or label is not understood, or no row speaks of these images.
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
    radius = float(source.radius_px or source.radius_um or 0)
    labels = {n: _labels(f"{path}: {n}", found, radius) for n, found in points.items()}
    return labels, _notes(str(path), strangers, lookup(others))


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
    return x, y, class_index(settings, label, where)


def _labels(where: str, found: list[Point], radius: float) -> PointLabels:
    centres = np.array([p[:2] for p in found], np.float64).reshape(-1, 2)
    return PointLabels(where, centres, np.array([p[2] for p in found], np.uint8), radius)


def _notes(path: str, strangers: Counter[str], elsewhere: Mapping[str, str | None]) -> list[str]:
    """Rows about images that no source has."""
    rows = {name: count for name, count in strangers.items() if not any(k in elsewhere for k in keys(name))}
    if not rows:
        return []
    return [
        f"{path}: {sum(rows.values())} rows speak of {len(rows)} images its source does not have ({few(list(rows))}); "
        "they are left out"
    ]
