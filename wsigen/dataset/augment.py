"""Augmentation that does not change a class: stain jitter, flips and quarter turns."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


def jitter_stain(crop: U8, rng: np.random.Generator, amount: float = 0.12) -> U8:
    """Scale and shift each colour's optical density a little; glass (density 0) keeps its colour."""
    density = -np.log((crop.astype(np.float32) + 1.0) / 256.0)
    scale = 1.0 + amount * rng.uniform(-1.0, 1.0, size=3) + amount * rng.uniform(-1.0, 1.0)
    # Glass is near density 0.05: keep that part untouched.
    jittered = np.where(density > 0.08, 0.08 + (density - 0.08) * scale, density)
    return np.asarray(np.clip(256.0 * np.exp(-jittered) - 1.0, 0, 255) + 0.5, dtype=np.uint8)


def dihedral(image: NDArray[Scalar], variant: int) -> NDArray[Scalar]:
    """Return one of the eight flips and quarter turns of the first two axes; variant 0 changes nothing."""
    turned = np.rot90(image, variant % 4)
    return np.ascontiguousarray(turned[:, ::-1] if variant >= 4 else turned)
