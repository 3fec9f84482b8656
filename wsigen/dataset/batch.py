"""What a dataset hands to training: batches of pixels or latents with their class maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

CELL_PX = 8
"""Side of a class-map pixel in image pixels: the factor of f8 latents."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of training crops.

    Attributes
    ----------
    images : uint8 [B, P, P, 3] RGB
    class_maps : uint8 [B, P // 8, P // 8], indices into the dataset's table, or `classes.UNKNOWN` where nobody said
    levels : int64 [B], index into the dataset's levels (0 = finest)
    labelled : bool [B], whether the crop comes from an image with any label
    """

    images: NDArray[np.uint8]
    class_maps: NDArray[np.uint8]
    levels: NDArray[np.int64]
    labelled: NDArray[np.bool_]


class CropStream(Protocol):
    """Random crops: a pure function of (seed, step), so that a resumed training sees the very same batches."""

    def batch(self, step: int, count: int) -> Batch:
        """Return ``count`` crops; a longer batch of the same step begins with the crops of a shorter one."""
        ...


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """A batch of cached latents.

    Attributes
    ----------
    latents : float32 [B, C, p, p], standardised per channel
    class_maps : uint8 [B, p, p], as in `Batch`
    levels : int64 [B]
    labelled : bool [B]
    """

    latents: NDArray[np.float32]
    class_maps: NDArray[np.uint8]
    levels: NDArray[np.int64]
    labelled: NDArray[np.bool_]


class LatentStream(Protocol):
    """Random latents: a pure function of (seed, step)."""

    def batch(self, step: int, count: int) -> LatentBatch:
        """Return ``count`` latents; a longer batch of the same step begins with those of a shorter one."""
        ...
