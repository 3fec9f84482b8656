"""What the report compares: crops of the held-out section, of training sections, and of the slides made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.models.bundle import find_bundle
from wsigen.models.model import load_model
from wsigen.slide.reading import open_image

if TYPE_CHECKING:
    from pipelines.her2st.made_slides import Slides
    from wsigen.dataset.dataset import Dataset
    from wsigen.dataset.members import Member
    from wsigen.models.extractors.extractors import Extractor

SIDE = 512
"""px of the crops that are compared."""
BATCH = 16
"""Crops that the extractor sees at a time."""
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
    found: list[tuple[Member, Box]] = []
    for member in members:
        found += [(member, box) for box in _lattice(member.canvas(mpp), side) if _tissue(member, box, mpp, glass)]
    return found


def _lattice(size: tuple[int, int], side: int) -> list[Box]:
    """All whole squares of ``side`` px on a canvas, side by side."""
    ys, xs = (range(0, extent - side + 1, side) for extent in size)
    return [Box(y, x, y + side, x + side) for y in ys for x in xs]


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
    boxes = _lattice(size, side)
    return Crops(np.stack([reference.region(box, size) for box in boxes]), np.full(len(boxes), label, np.int64))


def joined(parts: Sequence[Crops]) -> Crops:
    """All crops of all parts."""
    return Crops(np.concatenate([p.images for p in parts]), np.concatenate([p.classes for p in parts]))


def _dominant(where: list[tuple[Member, Box]], mpp: float, classes: int) -> NDArray[np.int64]:
    maps = np.stack([member.class_map(box, mpp) for member, box in where])
    shares = np.stack([(maps == c).mean(axis=(1, 2)) for c in range(classes)], axis=1)
    return np.where(shares.max(axis=1) >= DOMINANT, shares.argmax(axis=1), -1)


@dataclass(frozen=True, eq=False)
class Sides:
    """What is compared: crops of `SIDE` px of real tissue, of the twin, and of the slides of one class.

    ``training`` are at random places and may overlap; ``apart``, of training sections as well, do not.
    """

    held_out: Crops
    training: Crops
    apart: Crops
    twin: Crops
    classes: Crops


class Batched:
    """An extractor that sees few crops at a time, and none twice: 450 crops of 512 px at once would take 8 GB."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._known: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
        self.name, self.version = extractor.name, extractor.version

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 ``[n, d]`` of uint8 ``[n, P, P, 3]``."""
        if id(images) not in self._known:
            parts = [self._extractor.features(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
            self._known[id(images)] = images, np.concatenate(parts)  # the images stay, so that nothing else gets their id
        return self._known[id(images)][1]


def held_out_places(dataset: Dataset, count: int) -> list[tuple[Member, Box]]:
    """Where crops of the held-out section and of its twins are cut."""
    return places(dataset.held_out, dataset.mpps[0], SIDE, count, _glass(dataset), 0)


def cut_sides(dataset: Dataset, slides: Slides, count: int) -> Sides:
    """Cut all crops."""
    mpp, classes = dataset.mpps[0], len(dataset.table)
    where = held_out_places(dataset, count)
    training = real_crops(places(dataset.training, mpp, SIDE, 3 * count, _glass(dataset), 1), mpp, classes)
    apart = real_crops(lattice_places(dataset.training, mpp, SIDE, _glass(dataset)), mpp, classes)
    tissues = [(i, c.name) for i, c in enumerate(dataset.table) if not c.background]
    drawn = joined([tiles(slides.of(name), SIDE, index) for index, name in tissues])
    return Sides(real_crops(where, mpp, classes), training, apart, twin_crops(slides.twin, where, mpp, classes), drawn)


def reconstructed(model: str, crops: Crops) -> Crops:
    """What the autoencoder makes of crops: the best that any denoiser could do with it."""
    loaded = load_model(find_bundle(model))
    images = [loaded.autoencoder.decode(loaded.autoencoder.encode(image)).round().astype(np.uint8) for image in crops.images]
    return Crops(np.stack(images), crops.classes)


def with_own_detail(decoded: Crops, real: Crops, sigma: float = 1.0) -> Crops:
    """Crops with their own finest detail put back: what of their distance is owed to it.

    Parameters
    ----------
    sigma:
        px; detail is what a Gaussian of this standard deviation takes away.
    """
    images = []
    for made, true in zip(decoded.images, real.images, strict=True):
        smooth = [ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)) for image in (made, true)]
        images.append(np.clip(np.rint(made + (true - smooth[1]) - (made - smooth[0])), 0, 255).astype(np.uint8))
    return Crops(np.stack(images), decoded.classes)


def _glass(dataset: Dataset) -> int:
    return next(i for i, c in enumerate(dataset.table) if c.background)
