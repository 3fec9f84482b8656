"""Crops of the held-out section, of training sections, and of the slides made: what the report compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.her2st.crops import Crops, joined, lattice_places, places, real_crops, tiles, twin_crops
from wsigen.models.bundle import find_bundle
from wsigen.models.model import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.her2st.made_slides import Slides
    from wsigen.base.geometry import Box
    from wsigen.dataset.dataset import Dataset
    from wsigen.dataset.members import Member
    from wsigen.evaluation.extractors.extractors import Extractor

SIDE = 512
"""px of the crops that are compared."""
BATCH = 16
"""Crops that the extractor sees at a time."""


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
    from scipy.ndimage import gaussian_filter

    images = []
    for made, true in zip(decoded.images, real.images, strict=True):
        smooth = [gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)) for image in (made, true)]
        images.append(np.clip(np.rint(made + (true - smooth[1]) - (made - smooth[0])), 0, 255).astype(np.uint8))
    return Crops(np.stack(images), decoded.classes)


def _glass(dataset: Dataset) -> int:
    return next(i for i, c in enumerate(dataset.table) if c.background)
