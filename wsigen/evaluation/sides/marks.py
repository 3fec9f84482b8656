"""Sides that are not what they are given as: slides that say themselves whether wsigen made them, or a part of them."""

from __future__ import annotations

from collections.abc import Iterable

from wsigen.dataset.tables import few
from wsigen.evaluation.sides.sides import Side
from wsigen.slide.marks import synthetic_mark


def marked(sides: Iterable[Side]) -> list[str]:
    """Say which real sides hold synthetic slides, and which sides hold slides that are real in part; a line for each.

    Only what lies in a file's own metadata counts (`wsigen.slide.marks`): tiles cut out of a slide say nothing.
    """
    return [line for side in sides for line in _of(side)]


def _of(side: Side) -> list[str]:
    names: dict[str, list[str]] = {"true": [], "partly": []}
    for member in side.members:
        mark = synthetic_mark(member.path)
        if mark is not None:
            names[mark].append(member.name)
    taken = "synthetic" if side.name == "synthetic" else "real"
    whole, partly = (f"{side.path}: {len(n)} of {len(side.members)} images ({few(n)})" for n in names.values())
    lines = []
    if names["true"] and taken == "real":
        lines.append(f"{whole} say that wsigen made them, and count as {side.name}; were the sides exchanged?")
    if names["partly"]:
        lines.append(f"{partly} say that wsigen made a part of them; all of their tissue counts as {taken}")
    return lines
