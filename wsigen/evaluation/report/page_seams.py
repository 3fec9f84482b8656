"""The seams of a report: all slides in one table, then those whose borders show most."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from wsigen.evaluation.borders import REACH_PX, SeamScore
from wsigen.evaluation.pooled import PooledSeam, pool, worst_slides
from wsigen.evaluation.report.drawings import lines
from wsigen.evaluation.report.html import section, table
from wsigen.evaluation.selfchecks import SlideCheck

WORST = 3
"""Slides whose seams are shown one by one."""

HEAD = ("borders", "seam score", "noise", "pieces", "")

NOTE = (
    "1.00: nobody can find the borders. Found: more than three standard errors off, above (steps) or below (smoother than what "
    "lies beside). Teeth every 8 px in the profile are JPEG's blocks and the autoencoder's cells; borders are compared with "
    "places 16, 32 and 48 px away, on the same teeth; pieces with other borders all around are left out. Of several slides the "
    "mean is weighted by pieces of border, and the worst are shown; report.json has all."
)


def seams_section(slides: Sequence[SlideCheck]) -> str:
    """Return the section; empty where no seam was measured."""
    found, parts = pool(slides), []
    if len(slides) > 1 and found:
        head = (*HEAD, "found on slides", "worst slide")
        parts.append(f"<p><b>All slides</b></p>{table(head, [_pooled(p) for p in found])}{_profiles([p.seam for p in found])}")
    parts += [
        f"<p><b>{escape(slide.path)}</b></p>{table(HEAD, [_row(s) for s in slide.seams])}{_profiles(slide.seams)}"
        for slide in worst_slides(slides, WORST)
    ]
    return section("Seams", "".join(parts), NOTE) if parts else ""


def _row(seam: SeamScore) -> tuple[str, ...]:
    pieces = f"{seam.pieces} of {seam.pieces + seam.left_out}" if seam.left_out else str(seam.pieces)
    return seam.name, f"{seam.score:.4f}", f"{seam.noise:.4f}", pieces, "can be found" if seam.found else ""


def _pooled(found: PooledSeam) -> tuple[str, ...]:
    path, worst = found.worst
    return (*_row(found.seam), f"{found.found_on} of {found.slides}", f"{Path(path).name}: {worst.score:.3f}")


def _profiles(seams: Sequence[SeamScore]) -> str:
    series = [(s.name, s.profile) for s in seams[-2:] if s.profile]
    return lines(list(range(-REACH_PX, REACH_PX + 1)), series, "px from the border", "gradient, 1 = away from borders")
