"""Where crops and their nearest training crops lie: what a reader needs to look at a suspected copy on the slide."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsigen.evaluation.evaluate import Evaluation
from wsigen.evaluation.sides.sides import Crop, Side, at_full_size


@dataclass(frozen=True, slots=True)
class Place:
    """A crop on its file: its corner and its sides in px of level 0."""

    file: str
    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{Path(self.file).name} @ {self.x},{self.y}"


@dataclass(frozen=True, slots=True)
class Hits:
    """A training slide: of how many synthetic crops it holds the nearest training crop, and how many crops were taken of it."""

    file: str
    hits: int
    crops: int


def training_side(found: Evaluation) -> str:
    """Name of the side that memorisation is measured against."""
    return "training" if "training" in found.sides else "real"


def place_of(side: Side, crop: Crop) -> Place:
    """Return where a crop lies at full resolution."""
    member = side.members[crop.member]
    box = at_full_size(member, crop.box, crop.canvas)
    return Place(str(member.path), box.x0, box.y0, box.width, box.height)


def nearest_pairs(found: Evaluation) -> list[tuple[float, Place, Place]]:
    """Distance, place of every synthetic crop and place of the training crop nearest to it, in the order of the crops."""
    if found.nearest is None:
        return []
    name = training_side(found)
    training, synthetic = found.sets[name].crops, found.sets["synthetic"].crops
    return [
        (float(d), place_of(found.sides["synthetic"], crop), place_of(found.sides[name], training[int(i)]))
        for d, i, crop in zip(*found.nearest, synthetic, strict=True)
    ]


def hits_by_slide(found: Evaluation) -> list[Hits]:
    """Every training slide that holds a nearest crop, those with most of them first."""
    if found.nearest is None:
        return []
    name = training_side(found)
    crops, members = found.sets[name].crops, found.sides[name].members
    taken = Counter(c.member for c in crops)
    hits = Counter(crops[int(i)].member for i in np.asarray(found.nearest[1]))
    return [Hits(str(members[m].path), n, taken[m]) for m, n in sorted(hits.items(), key=lambda item: (-item[1], item[0]))]
