"""What needs no real side: the seams, levels and classes of each synthetic slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from wsigen.base.errors import WsigenError
from wsigen.evaluation.borders import SeamScore
from wsigen.evaluation.consistency import ClassArea, LevelAgreement, class_areas, level_agreement
from wsigen.evaluation.seams import periodic_seams, read_manifest, slide_seams
from wsigen.evaluation.sides.sides import Side
from wsigen.slide.reading import open_image

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlideCheck:
    """What was found on one slide; empty lists where it has no manifest, no levels or no classes."""

    path: str
    seams: list[SeamScore] = field(default_factory=list)
    levels: list[LevelAgreement] = field(default_factory=list)
    areas: list[ClassArea] = field(default_factory=list)


def check_slides(side: Side, period: int | None = None) -> tuple[list[SlideCheck], list[str]]:
    """Check every slide of a side that has a manifest or several levels.

    Parameters
    ----------
    period:
        Also measure borders every so many px of level 0, on any image.

    Returns
    -------
    checks, warnings:
        A slide that cannot be checked is a warning, and the rest goes on.
    """
    found: list[SlideCheck] = []
    warnings: list[str] = []
    for index, member in enumerate(side.members):
        if str(member.path) in side.skipped_paths:
            continue
        check = _check(side, index, period, warnings)
        if check.seams or check.levels or check.areas:
            found.append(check)
        warnings += [
            f"{member.path.name}: borders can be found: {s.name}, seam score {s.score:.3f} +- {s.noise:.3f}"
            for s in check.seams
            if s.found
        ]
    return found, warnings


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
    areas = [] if side.labels(index) is None else tried(lambda: class_areas(member, manifest))
    return SlideCheck(str(member.path), seams, levels, areas)
