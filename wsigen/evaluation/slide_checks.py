"""What needs no real side: whether a slide agrees with itself, in its seams, its levels and its classes; all slides pooled."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import WsigenError
from wsigen.base.geometry import Box
from wsigen.evaluation.borders import SeamScore
from wsigen.evaluation.seams import periodic_seams, read_manifest, slide_seams
from wsigen.evaluation.sides.sides import Side
from wsigen.layout.class_names import WrittenClasses
from wsigen.run.manifest import Manifest
from wsigen.slide.reading import ImageSource, extent, open_image

T = TypeVar("T")

BOXES, BOX_PX = 16, 256
"""Boxes compared at each level, and their longest side (px of that level)."""

FINE_PX = 4096
"""Longest side read of level 0 for one box."""


@dataclass(frozen=True, slots=True)
class LevelAgreement:
    """How a coarser level agrees with level 0.

    Attributes
    ----------
    downsample : float
        Pixels of level 0 per pixel of the level.
    difference : float
        Mean absolute difference in grey levels (0-255) to the area mean of level 0; a pyramid made by averaging and saved
        as JPEG has 1 to 3.
    psnr : float
        Peak signal to noise ratio in dB, infinite for equal pixels.
    """

    level: int
    downsample: float
    difference: float
    psnr: float


@dataclass(frozen=True, slots=True)
class ClassArea:
    """Area of a class in px of level 0.

    Attributes
    ----------
    asked : float or None
        On the class map the slide was made from, by its manifest; None: not known.
    drawn : float
        In the GeoJSON beside the slide.
    tissue : float
        Share of what was drawn where the picture shows tissue.
    """

    name: str
    asked: float | None
    drawn: float
    tissue: float


@dataclass(frozen=True, slots=True)
class SlideCheck:
    """The checks of one slide; empty lists where it has no manifest, no levels or no classes."""

    path: str
    seams: list[SeamScore] = field(default_factory=list)
    levels: list[LevelAgreement] = field(default_factory=list)
    areas: list[ClassArea] = field(default_factory=list)


def check_slides(side: Side, period: int | None = None) -> tuple[list[SlideCheck], list[str]]:
    """Check every slide of a side that has a manifest or several levels.

    Parameters
    ----------
    period : int or None
        Also measure borders every so many px of level 0, on any image.

    Returns
    -------
    checks, warnings:
        A slide that cannot be checked is a warning, and the rest goes on.
    """
    checks: list[SlideCheck] = []
    warnings: list[str] = []
    for index, member in enumerate(side.members):
        if str(member.path) in side.skipped_paths:
            continue
        check = _check(side, index, period, warnings)
        if check.seams or check.levels or check.areas:
            checks.append(check)
        warnings += [
            f"{member.path.name}: borders can be found: {s.name}, seam score {s.score:.3f} +- {s.noise:.3f}"
            for s in check.seams
            if s.visible
        ]
    return checks, warnings


def _check(side: Side, index: int, period: int | None, warnings: list[str]) -> SlideCheck:
    """Every check of a slide on its own: what one cannot do takes nothing from the others."""
    member = side.members[index]

    def tried(check: Callable[[], Sequence[T]]) -> list[T]:
        try:
            return [*check()]
        except WsigenError as error:
            if str(error) not in warnings:  # pixels that cannot be read fail every check
                warnings.append(str(error))
        except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:  # a manifest can say anything
            warnings.append(f"{member.path.name}: the manifest beside it cannot be used ({type(error).__name__}: {error})")
        return []

    read = tried(lambda: [read_manifest(member.path)])
    manifest = read[0] if read else None
    seams = [] if manifest is None else tried(lambda: slide_seams(member.reference, manifest))
    seams += [] if period is None else tried(lambda: periodic_seams(member.reference, period))
    levels = tried(lambda: level_agreement(open_image(member.path)))
    areas = tried(lambda: class_areas(side, index, manifest))
    return SlideCheck(str(member.path), seams, levels, areas)


def level_agreement(image: ImageSource, seed: int = 0) -> list[LevelAgreement]:
    """Compare the levels of a slide's pyramid with the finest one on random boxes.

    A level that was halved from an odd size ends in the middle of a pixel (`reading.extent`): its last row or column is not
    compared, as programs fill up what is missing of it in different ways.

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
    (height, width), levels = image.levels[0], []
    for level, (rows, columns) in enumerate(image.levels[1:], 1):
        canvas = extent(height, rows), extent(width, columns)
        whole = [max(1, min(int(whole), level_px)) for whole, level_px in zip(canvas, (rows, columns), strict=True)]
        down = max(height / canvas[0], width / canvas[1])
        side = max(8, min(BOX_PX, int(FINE_PX / down)))
        total = squares = count = 0.0
        for _ in range(BOXES):
            h, w = (min(side, px) for px in whole)
            y, x = (int(rng.integers(px - n + 1)) for px, n in zip(whole, (h, w), strict=True))
            box = Box(y, x, y + h, x + w)
            mean = image.region(box, canvas, level=0).astype(np.float64)
            gap = np.abs(mean - image.read(level, box))
            total, squares, count = total + gap.sum(), squares + (gap**2).sum(), count + gap.size
        psnr = 10 * math.log10(255**2 * count / squares) if squares else math.inf
        levels.append(LevelAgreement(level, down, total / count, psnr))
    return levels


def class_areas(side: Side, index: int, manifest: Manifest | None) -> list[ClassArea]:
    """Areas of the classes drawn beside a slide, against the class map it was made from and against its picture.

    Empty if nothing is drawn beside the slide. A class that was asked for and not drawn has an area of 0.
    """
    layout, table = side.layout(index), side.members[index].table
    if layout is None:
        return []
    mask = side.tissue(index).array()
    scale = layout.height / mask.shape[0]
    cell = max(1, round(scale))
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * scale / cell).astype(int), whole // cell)
        for n, whole in zip(mask.shape, (layout.height, layout.width), strict=True)
    )
    cells = layout.class_map(Box(0, 0, int(rows[-1]) + 1, int(columns[-1]) + 1), cell)[np.ix_(rows, columns)]
    px = layout.height * layout.width / mask.size
    stated = _renamed(manifest.area_px, side.names) if manifest else {}
    asked = {name.casefold(): area for name, area in stated.items()}
    areas = []
    for position, name in [*enumerate(table.names), (UNKNOWN, "(no annotation)")]:
        inside = cells == position
        if inside.any():
            wanted = asked.get(name.casefold(), 0.0) if asked and position != UNKNOWN else None
            areas.append(ClassArea(name, wanted, float(inside.sum() * px), float(mask[inside].mean())))
    drawn = {name.casefold() for name in table.names}  # also one too small for a cell of the tissue's view
    return areas + [ClassArea(n, area, 0.0, math.nan) for n, area in stated.items() if area and n.casefold() not in drawn]


def _renamed(areas: Mapping[str, float], names: WrittenClasses) -> dict[str, float]:
    """Areas by class as the sides name it."""
    found: dict[str, float] = defaultdict(float)
    for written, area in areas.items():
        if (name := names.find(written)) is not None:
            found[name] += area
    return dict(found)


@dataclass(frozen=True, slots=True)
class PooledSeam:
    """Some borders of all slides that have them.

    Attributes
    ----------
    seam : SeamScore
        Means over slides, weighted by their pieces of border; the noise is that of this mean. Counts are sums.
    slides : int
        How many slides have such borders.
    visible_on : int
        On how many of them they are visible.
    worst : tuple
        Path of the slide whose score is farthest from 1 in standard errors, and that score.
    """

    seam: SeamScore
    slides: int
    visible_on: int
    worst: tuple[str, SeamScore]


def pool(slides: Sequence[SlideCheck]) -> list[PooledSeam]:
    """Pool the seams of slides by the names of their borders, in the order in which they first come.

    ``score = sum n_i s_i / sum n_i`` and ``noise = sqrt(sum (n_i e_i)^2) / sum n_i`` over slides i with n_i pieces, score s_i
    and standard error e_i: slides are independent. Borders that could be measured on no slide are left out.
    """
    groups: dict[str, list[tuple[str, SeamScore]]] = defaultdict(list)
    for slide in slides:
        for seam in slide.seams:
            if math.isfinite(seam.score):
                groups[seam.name].append((slide.path, seam))
    return [_pool(name, measured) for name, measured in groups.items()]


def deviation(seam: SeamScore) -> float:
    """How far a score is from 1, in standard errors."""
    return abs(seam.score - 1) / seam.noise if seam.noise > 0 else math.inf if seam.score != 1 else 0.0


def worst_slides(slides: Sequence[SlideCheck], most: int) -> list[SlideCheck]:
    """The slides whose borders can be measured best, at most so many; slides without seams are left out."""
    measured = [s for s in slides if any(math.isfinite(x.score) for x in s.seams)]
    return sorted(measured, key=lambda s: -max(deviation(x) for x in s.seams if math.isfinite(x.score)))[:most]


def _pool(name: str, measured: list[tuple[str, SeamScore]]) -> PooledSeam:
    seams = [seam for _, seam in measured]
    pieces = np.array([s.pieces for s in seams], np.float64)
    score = float(np.average([s.score for s in seams], weights=pieces))
    noise = float(np.sqrt(((pieces * [s.noise for s in seams]) ** 2).sum()) / pieces.sum())
    profile = np.average([s.profile for s in seams], axis=0, weights=pieces)
    left_out = sum(s.left_out for s in seams)
    pooled = SeamScore(name, score, noise, int(pieces.sum()), left_out, tuple(float(v) for v in profile))
    return PooledSeam(pooled, len(seams), sum(s.visible for s in seams), max(measured, key=lambda pair: deviation(pair[1])))
