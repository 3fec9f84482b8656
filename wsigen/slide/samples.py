"""From the samples of a file to 8-bit RGB: more than 8 bits, grey, palettes, YCbCr, transparency."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.generic]
RGB = NDArray[np.uint8]

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of the sensors that are in use; their values are stored in 16 bits."""


def bits_for(largest: int, declared: int | None) -> tuple[int, str]:
    """Return how many bits samples of 16 bits use, and the note that tells it.

    Parameters
    ----------
    largest : int
        Value found in the file.
    declared : int or None
        Bits that the file says to use; they count unless values go beyond.
    """
    if declared and largest < 2**declared:
        return declared, f"{declared} bits a sample, as declared: scaled to 8"
    bits = next(depth for depth in DEPTHS if largest < 2**depth or depth == DEPTHS[-1])
    return bits, f"16 bits a sample, values to {largest} found: taken as {bits} bits and scaled to 8"


def to_8_bit(samples: Samples, bits: int) -> RGB:
    """Scale 0 .. 2^bits - 1 to 0 .. 255."""
    if samples.dtype == np.uint8 and bits == 8:
        return samples.astype(np.uint8, copy=False)
    if samples.dtype == bool:
        return samples.astype(np.uint8) * 255
    return np.clip(np.rint(samples.astype(np.float32) * (255 / (2**bits - 1))), 0, 255).astype(np.uint8)


def from_ycbcr(samples: RGB) -> RGB:
    """JPEG's YCbCr (full range, ITU-R BT.601) to RGB, ``[h, w, 3]``."""
    y, cb, cr = (samples[..., i].astype(np.float32) - (0, 128, 128)[i] for i in range(3))
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def over(colours: RGB, alpha: NDArray[np.uint8], glass: NDArray[np.uint8] | int, *, multiplied: bool = False) -> RGB:
    """Put colours over glass.

    Parameters
    ----------
    alpha : uint8 ``[h, w]``
        255 is opaque.
    glass : uint8 ``[3]`` or int
        Colour of what is transparent.
    multiplied : bool
        Whether the colours were multiplied by alpha already.
    """
    if (alpha == 255).all():
        return np.ascontiguousarray(colours)
    share = alpha[..., None].astype(np.float32) / 255
    front = colours.astype(np.float32) if multiplied else colours * share
    return np.clip(np.rint(front + np.asarray(glass) * (1 - share)), 0, 255).astype(np.uint8)
