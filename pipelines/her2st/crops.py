"""Crops of tissue, of real sections and of their synthetic twins at the same places, and of one-class slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.dataset.members import Member
from wsigen.slide.reading import open_image

LEAST_TISSUE = 0.6
"""Share of a crop's cells that are neither glass nor unknown."""
DOMINANT = 0.6
"""Share of a crop's cells from which it counts as being of a class."""


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops and their classes.

    Attributes
    ----------
    images : uint8 [n, side, side, 3]
    classes : int64 [n], index of the class that covers `DOMINANT` of the crop, or -1
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def some(self, count: int, seed: int = 0) -> Crops:
        """Draw ``count`` of them at random, without repeats."""
        chosen = np.random.default_rng(seed).permutation(len(self.images))[:count]
        return Crops(self.images[chosen], self.classes[chosen])


def places(members: Sequence[Member], mpp: float, side: int, count: int, glass: int, seed: int) -> list[tuple[Member, Box]]:
    """Draw places with enough tissue, on any of the sections."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(1000 * count):
        member = members[int(rng.integers(len(members)))]
        height, width = member.canvas(mpp)
        y, x = (int(rng.integers(0, (size - side) // 8)) * 8 for size in (height, width))
        box = Box(y, x, y + side, x + side)
        if _tissue(member, box, mpp, glass):
            found.append((member, box))
            if len(found) == count:
                break
    return found


def lattice_places(members: Sequence[Member], mpp: float, side: int, glass: int) -> list[tuple[Member, Box]]:
    """All places with enough tissue on a lattice without overlap: no two crops show the same tissue."""
    found = []
    for member in members:
        height, width = member.canvas(mpp)
        for y in range(0, height - side + 1, side):
            for x in range(0, width - side + 1, side):
                box = Box(y, x, y + side, x + side)
                if _tissue(member, box, mpp, glass):
                    found.append((member, box))
    return found


def _tissue(member: Member, box: Box, mpp: float, glass: int) -> bool:
    return bool((~np.isin(member.class_map(box, mpp), (glass, UNKNOWN))).mean() >= LEAST_TISSUE)


def real_crops(where: list[tuple[Member, Box]], mpp: float, classes: int) -> Crops:
    """Read the sections there."""
    images = [member.image(box, mpp) for member, box in where]
    return Crops(np.stack(images), _dominant(where, mpp, classes))


def twin_crops(slide: Path, where: list[tuple[Member, Box]], mpp: float, classes: int) -> Crops:
    """Read a synthetic slide made of a section's class map, where ``where`` lies in that section."""
    reference = open_image(slide)
    size = (reference.height, reference.width)
    return Crops(np.stack([reference.region(box, size) for _, box in where]), _dominant(where, mpp, classes))


def tiles(slide: Path, side: int, label: int) -> Crops:
    """Cut a slide of one class into tiles, all of them."""
    reference = open_image(slide)
    size = (reference.height, reference.width)
    boxes = [
        Box(y, x, y + side, x + side) for y in range(0, size[0] - side + 1, side) for x in range(0, size[1] - side + 1, side)
    ]
    return Crops(np.stack([reference.region(box, size) for box in boxes]), np.full(len(boxes), label, np.int64))


def joined(parts: Sequence[Crops]) -> Crops:
    """All crops of all parts."""
    return Crops(np.concatenate([p.images for p in parts]), np.concatenate([p.classes for p in parts]))


def _dominant(where: list[tuple[Member, Box]], mpp: float, classes: int) -> NDArray[np.int64]:
    maps = np.stack([member.class_map(box, mpp) for member, box in where])
    shares = np.stack([(maps == c).mean(axis=(1, 2)) for c in range(classes)], axis=1)
    return np.where(shares.max(axis=1) >= DOMINANT, shares.argmax(axis=1), -1)
