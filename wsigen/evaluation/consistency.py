"""Whether a slide agrees with itself: its levels with each other, its picture with its classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.errors import WsigenError
from wsigen.base.geometry import Box
from wsigen.evaluation.sides.labels import UNLABELLED, Labels, labels_of
from wsigen.evaluation.sides.members import Member
from wsigen.slide.reading import ImageSource

BOXES, BOX_PX = 16, 256
"""Boxes compared at each level, and their longest side (px of that level)."""

FINE_PX = 4096
"""Longest side read of level 0 for one box."""


@dataclass(frozen=True, slots=True)
class LevelAgreement:
    """How a coarser level agrees with level 0.

    Attributes
    ----------
    downsample:
        Pixels of level 0 per pixel of the level.
    difference:
        Mean absolute difference in grey levels (0-255) to the area mean of level 0; a pyramid made by averaging and saved
        as JPEG has 1 to 3.
    psnr:
        Peak signal to noise ratio in dB, infinite for equal pixels.
    """

    level: int
    downsample: float
    difference: float
    psnr: float


@dataclass(frozen=True, slots=True)
class ClassArea:
    """Area of a class in px of level 0: asked for (None: not known), and drawn.

    Asked for is what the class or the GeoJSON layout of the run says; for other layouts (label rasters, drawn by wsigen, gone)
    the class map the slide was made from, by its manifest, which is held against the GeoJSON beside the slide.
    ``tissue`` is the share of what was drawn where the picture shows tissue.
    """

    name: str
    asked: float | None
    drawn: float
    tissue: float


def level_agreement(image: ImageSource, seed: int = 0) -> list[LevelAgreement]:
    """Compare the levels of a slide's pyramid with the finest one on random boxes.

    Memory bound: one box of `FINE_PX` a side of level 0.

    Returns
    -------
    list
        One entry a coarser level; empty for an image of one level.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    rng = np.random.default_rng(seed)
    (height, width), found = image.levels[0], []
    for level, (rows, columns) in enumerate(image.levels[1:], 1):
        down = max(height / rows, width / columns)
        side = max(8, min(BOX_PX, int(FINE_PX / down)))
        total = squares = count = 0.0
        for _ in range(BOXES):
            h, w = min(side, rows), min(side, columns)
            y, x = int(rng.integers(rows - h + 1)), int(rng.integers(columns - w + 1))
            box = Box(y, x, y + h, x + w)
            mean = image.region(box, (rows, columns), level=0).astype(np.float64)
            gap = np.abs(mean - image.read(level, box))
            total, squares, count = total + gap.sum(), squares + (gap**2).sum(), count + gap.size
        psnr = 10 * math.log10(255**2 * count / squares) if squares else math.inf
        found.append(LevelAgreement(level, down, total / count, psnr))
    return found


def class_areas(member: Member, manifest: dict[str, Any] | None) -> list[ClassArea]:
    """Areas of the classes drawn beside a slide, against its layout and against its picture.

    Empty if there is no GeoJSON beside the slide. A class that was asked for and not drawn has an area of 0.
    """
    drawn = member.labels
    if drawn is None:
        return []
    asked, told = _asked(member, manifest), _told(manifest)
    mask = member.tissue.array()
    scale = member.reference.height / mask.shape[0]
    cell = max(1, round(scale))
    rows = np.minimum(((np.arange(mask.shape[0]) + 0.5) * scale / cell).astype(int), member.reference.height // cell)
    columns = np.minimum(((np.arange(mask.shape[1]) + 0.5) * scale / cell).astype(int), member.reference.width // cell)
    cells = drawn.layout.class_map(Box(0, 0, int(rows[-1]) + 1, int(columns[-1]) + 1), cell)[np.ix_(rows, columns)]
    px = member.reference.height * member.reference.width / mask.size
    if asked is None and told:  # the class map the slide was made from is what was asked for; drawn is what lies beside it
        asked, told = {name.casefold(): area for name, area in told.items()}, {}
    found = []
    for index, tissue in enumerate(drawn.table):
        inside = cells == index
        if inside.any():
            area = float(told.get(tissue.name, inside.sum() * px))
            share = float(mask[inside].mean())
            wanted = None if asked is None or tissue.name == UNLABELLED else asked.get(tissue.name.casefold(), 0.0)
            found.append(ClassArea(tissue.name, wanted, area, share))
    drawn_area = {n.casefold(): area for n, area in told.items()}
    shown = {a.name.casefold() for a in found}
    if not told:  # a class too small for a cell of the tissue's view is in the drawing all the same
        shown |= {tissue.name.casefold() for tissue in drawn.table}
    missing = [n for n in _told(manifest) if n.casefold() not in shown and (asked or {}).get(n.casefold())]  # no glass
    return found + [ClassArea(n, (asked or {})[n.casefold()], drawn_area.get(n.casefold(), 0.0), math.nan) for n in missing]


def _told(manifest: dict[str, Any] | None) -> dict[str, float]:
    """Areas of the class map a slide was made from, in px of the slide by name."""
    return {str(name): float(area) for name, area in ((manifest or {}).get("area_px") or {}).items()}


def _asked(member: Member, manifest: dict[str, Any] | None) -> dict[str, float] | None:
    """Areas asked for in px of the slide by folded name.

    All of it for a slide of one class; else those of the run's GeoJSON layout, None if it is gone or of another kind.
    """
    whole = ((manifest or {}).get("settings") or {}).get("class_name")
    if whole:
        return {str(whole).casefold(): float(member.reference.height) * member.reference.width}
    layout = ((manifest or {}).get("inputs") or {}).get("layout")
    if not layout or not Path(layout).is_file() or not layout.lower().endswith((".geojson", ".geojson.gz")):
        return None
    settings = (manifest or {}).get("settings", {})
    mpp, slide = settings.get("layout_mpp"), (manifest or {})["slide"]
    scale = float(mpp) / float(slide["mpp"]) if mpp else 1.0
    size = (int(slide["height"]), int(slide["width"]))
    try:
        labels = labels_of(Path(layout), (round(size[0] / scale), round(size[1] / scale)))
    except WsigenError:
        return None
    return None if labels is None else _areas(labels, scale, settings.get("background"))


def _areas(labels: Labels, scale: float, background: str | None) -> dict[str, float]:
    """Area of every class, on a grid of at most 2048 cells a side; what is not drawn belongs to ``background``."""
    layout = labels.layout
    cell = max(1, max(layout.height, layout.width) // 2048)
    cells = layout.class_map(Box(0, 0, -(-layout.height // cell), -(-layout.width // cell)), cell)
    counts = np.bincount(cells.ravel(), minlength=len(labels.table)) * cell**2 * scale**2
    areas = {c.name.casefold(): float(n) for c, n in zip(labels.table, counts, strict=True)}
    rest = areas.pop(UNLABELLED)
    if background:
        areas[background.casefold()] = areas.get(background.casefold(), 0.0) + rest
    return areas
