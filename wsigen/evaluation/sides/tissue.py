"""Where tissue is on a slide, from a coarse view of it.

Glass lets the light pass; tissue absorbs it by its optical density (Beer-Lambert), whose histogram on a slide has two
humps. Otsu's threshold (1979, IEEE Trans. SMC 9:62) parts them; it is kept within bounds so that a picture without any
glass is not halved and one without any tissue yields none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

VIEW_UM = 8.0
"""um/px of the view in which tissue is looked for: a cell is about one pixel, a gland several."""

THRESHOLD_OD = (0.05, 0.10)
"""Bounds of the threshold: glass scatters below 0.03, pale eosin stroma lies above 0.10."""

DARKEST_GLASS = 230
"""Value below which a channel's brightest pixels are no glass: a tile full of tissue has none."""


def optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean optical density ``-log10(I / I0)`` of the three channels, float32 ``[h, w]``, 0 for glass.

    ``I0`` is the 99th percentile of each channel, at least ``DARKEST_GLASS``.
    """
    light = np.maximum(np.percentile(rgb.reshape(-1, 3), 99, axis=0), DARKEST_GLASS)
    transmitted = np.clip(rgb.astype(np.float32), 1.0, None) / light.astype(np.float32)
    return np.asarray(np.maximum(-np.log10(transmitted).mean(axis=-1), 0.0), dtype=np.float32)


def otsu(values: NDArray[np.float32], bins: int = 256) -> float:
    """Return the threshold that maximises the variance between the two sides of it."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], counts.sum() - np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.where((below > 0) & (above > 0), below * above * np.nan_to_num(apart), 0.0)
    return float(edges[1:-1][np.argmax(between)])


def tissue_mask(rgb: NDArray[np.uint8]) -> Mask:
    """Find tissue in a view of about ``VIEW_UM`` um/px.

    Parameters
    ----------
    rgb:
        uint8 ``[h, w, 3]``.

    Returns
    -------
    bool ``[h, w]``, True on tissue; single pixels of dust are removed.
    """
    from scipy import ndimage

    density = optical_density(rgb)
    low, high = THRESHOLD_OD
    mask = density > min(max(otsu(density), low), high)
    if min(mask.shape) >= 16:
        mask = ndimage.binary_closing(ndimage.binary_opening(mask), iterations=2) | ndimage.binary_opening(mask)
    return np.asarray(mask, dtype=bool)
