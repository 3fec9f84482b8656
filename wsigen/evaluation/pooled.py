"""Seams of many slides in one figure: a group of borders over all slides that have it, and the slides it shows most on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsigen.evaluation.borders import SeamScore
from wsigen.evaluation.selfchecks import SlideCheck


@dataclass(frozen=True, slots=True)
class PooledSeam:
    """Some borders of all slides that have them.

    Attributes
    ----------
    seam:
        Means over slides, weighted by their pieces of border; the noise is that of this mean. Counts are sums.
    slides:
        How many slides have such borders.
    found_on:
        On how many of them they can be found.
    worst:
        Path of the slide whose score is farthest from 1 in standard errors, and that score.
    """

    seam: SeamScore
    slides: int
    found_on: int
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
    return [_pool(name, found) for name, found in groups.items()]


def deviation(seam: SeamScore) -> float:
    """How far a score is from 1, in standard errors."""
    return abs(seam.score - 1) / seam.noise if seam.noise > 0 else math.inf if seam.score != 1 else 0.0


def worst_slides(slides: Sequence[SlideCheck], most: int) -> list[SlideCheck]:
    """The slides whose borders can be found best, at most so many; slides without seams are left out."""
    measured = [s for s in slides if any(math.isfinite(x.score) for x in s.seams)]
    return sorted(measured, key=lambda s: -max(deviation(x) for x in s.seams if math.isfinite(x.score)))[:most]


def _pool(name: str, found: list[tuple[str, SeamScore]]) -> PooledSeam:
    seams = [seam for _, seam in found]
    pieces = np.array([s.pieces for s in seams], np.float64)
    score = float(np.average([s.score for s in seams], weights=pieces))
    noise = float(np.sqrt(((pieces * [s.noise for s in seams]) ** 2).sum()) / pieces.sum())
    profile = np.average([s.profile for s in seams], axis=0, weights=pieces)
    left_out = sum(s.left_out for s in seams)
    pooled = SeamScore(name, score, noise, int(pieces.sum()), left_out, tuple(float(v) for v in profile))
    return PooledSeam(pooled, len(seams), sum(s.found for s in seams), max(found, key=lambda pair: deviation(pair[1])))
