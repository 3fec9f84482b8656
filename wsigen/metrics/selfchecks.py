"""What needs no real side: the seams, levels and classes of each synthetic slide."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsigen.errors import WsigenError
from wsigen.metrics.consistency import ClassArea, LevelAgreement, class_areas, level_agreement
from wsigen.metrics.gradients import SeamScore
from wsigen.metrics.seams import periodic_seams, read_manifest, slide_seams
from wsigen.metrics.sides import Side


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
    found, warnings = [], []
    for member in side.members:
        if str(member.path) in side.skipped_paths:
            continue
        try:
            manifest = read_manifest(member.path)
            seams = [] if manifest is None else slide_seams(member.reference, manifest)
            seams += [] if period is None else periodic_seams(member.reference, period)
            check = SlideCheck(str(member.path), seams, level_agreement(str(member.path)), class_areas(member, manifest))
        except WsigenError as error:
            warnings.append(str(error))
            continue
        except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:  # a manifest can say anything
            warnings.append(f"{member.path.name}: the manifest beside it cannot be used ({type(error).__name__}: {error})")
            continue
        if check.seams or check.levels or check.areas:
            found.append(check)
        warnings += [
            f"{member.path.name}: borders can be found: {s.name}, seam score {s.score:.3f} +- {s.noise:.3f}"
            for s in check.seams
            if s.found
        ]
    return found, warnings
