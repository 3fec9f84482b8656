"""Where the tissue is, and clean glass everywhere else.

The scans have lilac glass with a printed array of spots, fiducials and dust. Every pixel is divided by the
local colour of the glass (flat-field correction), and what is then nearly transparent is painted with one
constant colour, so that a model trained on the result never learns to paint an array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

COARSE = 16  # px of the image per px of the coarse view in which tissue is looked for


def area_mean(image: NDArray[np.generic], factor: int) -> F32:
    """Average blocks of ``factor`` x ``factor`` pixels; a remainder at the far border is cut off.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    factor : block side in px
    """
    height, width = (side // factor * factor for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, *image.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32), dtype=np.float32)


def smoothstep(low: float, high: float, value: F32) -> F32:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def glass_colour(coarse: F32, tissue: Mask, sigma: float = 24.0) -> F32:
    """Interpolate the colour of the glass under the tissue from the glass around it.

    Parameters
    ----------
    coarse : (h, w, 3) coarse RGB, 0-255
    tissue : (h, w) True where glass must not be read
    sigma : reach of the interpolation in coarse px

    Returns
    -------
    (h, w, 3) the local glass colour, by normalised convolution towards the global median
    """
    glass = ~tissue
    typical = np.median(coarse[glass], axis=0) if glass.any() else np.full(3, 255.0)
    weight = ndimage.gaussian_filter(glass.astype(np.float32), sigma) + 1e-3
    colour = [
        typical[c] + ndimage.gaussian_filter(np.where(glass, coarse[..., c] - typical[c], 0.0), sigma) / weight
        for c in range(3)
    ]
    return np.asarray(np.stack(colour, axis=-1), dtype=np.float32)


def coarse_tissue(coarse: F32, threshold: float = 0.12) -> Mask:
    """Find the tissue in a coarse view: clearly darker than glass, in large pieces, holes filled.

    Returns
    -------
    (h, w) True on tissue and the holes it encloses
    """
    typical = np.median(coarse.reshape(-1, 3), axis=0)
    absorbance = 1.0 - (coarse / typical).min(axis=-1)
    # Dust out of focus is grey; tissue is coloured. An opening removes the array spots.
    saturation = (coarse.max(axis=-1) - coarse.min(axis=-1)) / np.maximum(coarse.max(axis=-1), 1.0)
    mask = ndimage.binary_closing((absorbance > threshold) & (saturation > 0.1), iterations=3)
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=2))
    pieces, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(pieces.ravel())[1:]
    kept = 1 + np.flatnonzero(sizes >= 0.05 * sizes.max())
    return np.asarray(np.isin(pieces, kept))


def bounding_box(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns that hold the True pixels of ``mask``."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("No tissue found: expected an image with pixels clearly darker than the glass.")
    return found[0][0], found[0][1]


def enlarge(coarse: NDArray[np.generic], shape: tuple[int, int], factor: int = COARSE) -> F32:
    """Enlarge a coarse field bilinearly to ``shape`` px, pixel centres aligned.

    Parameters
    ----------
    coarse : (h, w) or (h, w, C)
    shape : (H, W) in px
    """
    rows, cols = ((np.arange(side) + 0.5) / factor - 0.5 for side in shape)
    along = _interpolate(coarse.astype(np.float32), rows)
    return np.moveaxis(_interpolate(np.moveaxis(along, 1, 0), cols), 0, 1)


def _interpolate(values: F32, at: NDArray[np.float64]) -> F32:
    at = np.clip(at, 0, values.shape[0] - 1)
    low = np.minimum(at.astype(np.int64), max(values.shape[0] - 2, 0))
    high = np.minimum(low + 1, values.shape[0] - 1)
    t = (at - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[low] * (1 - t) + values[high] * t, dtype=np.float32)


def clean_glass(image: U8, glass: F32, inside: F32, glass_rgb: tuple[int, int, int]) -> tuple[U8, F32]:
    """Divide by the glass colour and paint what is transparent with constant glass, feathered.

    Parameters
    ----------
    image : (H, W, 3) RGB, 0-255
    glass : (H, W, 3) local glass colour, 0-255
    inside : (H, W) 0 far from tissue to 1 on it; array spots outside tissue are removed by it
    glass_rgb : the constant colour

    Returns
    -------
    cleaned : (H, W, 3) uint8
    opacity : (H, W) 0 = painted glass, 1 = the corrected image
    """
    transmittance = np.minimum(image / glass, 1.0).astype(np.float32)
    absorbance = 1.0 - ndimage.gaussian_filter(transmittance.min(axis=-1), 1.5)
    opacity = smoothstep(0.05, 0.13, absorbance) * inside
    white = np.asarray(glass_rgb, dtype=np.float32)
    blended = white * (1.0 - opacity[..., None] * (1.0 - transmittance))
    return np.rint(blended).astype(np.uint8), opacity.astype(np.float32)
