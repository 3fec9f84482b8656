"""Random pixel crops of cleaned sections, for the autoencoder; a batch depends on (seed, step) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.cohort.augment import dihedral, jitter_stain
from pipelines.her2st.features import LATENT_PX
from pipelines.her2st.sections import Section
from pipelines.her2st.tissue import U8, area_mean


@dataclass(frozen=True)
class CropSource:
    """One image crops are cut from.

    Attributes
    ----------
    rgb : (H, W, 3) uint8
    centres : (n, 2) rows and columns in px of places on tissue
    """

    rgb: U8
    centres: NDArray[np.int32]


def crop_source(section: Section, factor: int = 1) -> CropSource:
    """Make a section, or its view ``factor`` times coarser, a source of crops."""
    rgb = section.rgb if factor == 1 else np.rint(area_mean(section.rgb, factor)).astype(np.uint8)
    centres = (np.argwhere(section.tissue) * LATENT_PX + LATENT_PX // 2) // factor
    return CropSource(rgb, centres.astype(np.int32))


def random_crop(source: CropSource, side_px: int, rng: np.random.Generator, anywhere: float = 0.08) -> U8:
    """Cut a square centred on tissue (hence often with a border of glass), seldom anywhere at all."""
    height, width = source.rgb.shape[:2]
    row, col = source.centres[rng.integers(len(source.centres))]
    if rng.random() < anywhere:
        row, col = rng.integers(height), rng.integers(width)
    shift = rng.integers(-side_px // 4, side_px // 4 + 1, size=2)
    top = int(np.clip(row - side_px // 2 + shift[0], 0, height - side_px))
    left = int(np.clip(col - side_px // 2 + shift[1], 0, width - side_px))
    return source.rgb[top : top + side_px, left : left + side_px]


def pixel_batch(
    patches: Sequence[CropSource],
    overviews: Sequence[CropSource],
    *,
    side_px: int,
    batch: int,
    overview_share: float,
    seed: tuple[int, int],
) -> NDArray[np.float32]:
    """Draw augmented crops of both levels.

    Returns
    -------
    (batch, 3, side_px, side_px) in [-1, 1]
    """
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(batch):
        sources = overviews if rng.random() < overview_share else patches
        crop = random_crop(sources[int(rng.integers(len(sources)))], side_px, rng)
        crop = jitter_stain(crop, rng) if rng.random() < 0.5 else crop
        crops.append(dihedral(crop, int(rng.integers(8))))
    stacked = np.stack(crops).astype(np.float32) / 127.5 - 1.0
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))
