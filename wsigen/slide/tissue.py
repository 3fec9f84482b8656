"""Where the tissue of an image is: the one finder of datasets and evaluations, on a small view.

Method: the colour of the glass is the most frequent brightness among bright, nearly grey, locally smooth pixels (so
lilac or yellowish glass is glass); optical densities are taken relative to it. Haematoxylin and eosin both absorb
green most (Ruifrok & Johnston 2001), so tissue is what is dense and absorbs green clearly more than the weakest
channel; what is pale must be textured, too, for stain left in the mounting medium makes a smooth pink haze. Blue and
green pens absorb red more than green, black pen and dust absorb all channels alike: they are no tissue, with a margin
around pens. An opening removes dots (printed arrays), small pieces go, small holes are filled.

Compared with Otsu's threshold of the optical density (1979) on real tiles and slides: that takes adipose tissue, mucus and
necrosis for glass (half of such tiles), and dust for tissue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.base.geometry import Box
from wsigen.slide.reading import ImageSource

VIEW_MPP = 8.0
"""um/px at which tissue is looked for."""
VIEW_MIN_PX, VIEW_MAX_PX = 128, 4096
"""Bounds of the view: of its short side from below (11 ms a tile; 39 ms with 256), of its long side from above (48 MB)."""
USUAL_MPP = 0.5
"""um/px of an image that does not say it."""
DENSITY = 0.05
"""Least mean optical density over glass; the palest stroma is near 0.08, glass varies by 0.02."""
COLOUR = 0.03
"""Least difference of optical density between green and the weakest channel; dust is grey."""
DENSE, TEXTURE = 0.2, 0.03
"""Denser than the first is tissue though smooth (haze is near 0.11); paler needs so much local deviation of density."""
TEXTURE_UM = 24.0
"""Standard deviation of the Gaussian window in which density may deviate."""
LEAST_UM2 = 10_000.0
"""Smallest piece of tissue, and largest hole that is filled."""

Mask = NDArray[np.bool_]


def find_tissue(image: ImageSource, mpp: float | None) -> Mask:
    """Return the tissue on a small view of an image: bool ``[h, w]``, all of it at about 8 um/px.

    Parameters
    ----------
    mpp : float or None
        um/px of the full resolution, or None if nobody knows.
    """
    mpp = mpp or USUAL_MPP
    height, width = image.height * image.aspect, image.width
    short, long = sorted((height, width))
    factor = max(1.0, min(VIEW_MPP / mpp, short / VIEW_MIN_PX), long / VIEW_MAX_PX)
    canvas = (max(1, round(height / factor)), max(1, round(width / factor)))
    view = image.region(Box(0, 0, *canvas), canvas)
    return tissue_mask(view, mpp * factor)


def tissue_mask(view: NDArray[np.uint8], mpp: float) -> Mask:
    """Find the tissue in RGB uint8 ``[h, w, 3]`` at ``mpp`` um/px: bool ``[h, w]``."""
    smooth = ndimage.gaussian_filter(view.astype(np.float32), (1.0, 1.0, 0))
    density = -np.log(np.maximum(smooth, 1.0) / glass_colour(smooth))
    red, green, _blue = np.moveaxis(density, -1, 0)
    mean, weakest = density.mean(axis=-1), density.min(axis=-1)
    pen = (mean > 0.15) & (red > 1.25 * green)
    pen |= (mean > 0.9) & (density.max(axis=-1) - weakest < 0.15 * density.max(axis=-1))
    pen = ndimage.binary_dilation(ndimage.binary_opening(pen, iterations=1), iterations=3)
    textured = _deviation(mean, max(1.0, TEXTURE_UM / mpp)) > TEXTURE
    mask = (mean > DENSITY) & (green - weakest > COLOUR) & (textured | (mean > DENSE)) & ~pen
    mask = np.pad(mask, 4, mode="edge")  # morphology would eat the tissue at the image's border
    mask = ndimage.binary_opening(ndimage.binary_closing(mask, iterations=2), iterations=2)[4:-4, 4:-4]
    return _without_small(mask, max(16.0, LEAST_UM2 / mpp**2))


def glass_colour(view: NDArray[np.float32]) -> NDArray[np.float32]:
    """Estimate the glass of a view (RGB 0-255): float32 ``[3]``; near white where the view shows none."""
    light = view.mean(axis=-1)
    edges = ndimage.gaussian_gradient_magnitude(light, 1.0)
    grey = view.max(axis=-1) - view.min(axis=-1) < 0.15 * view.max(axis=-1)
    candidates = (light > 160) & grey & (edges < 2.0)
    if candidates.mean() < 0.005:
        return np.full(3, 243.0, np.float32)
    histogram = np.bincount(light[candidates].astype(np.int64), minlength=256)
    peak = int(np.argmax(ndimage.gaussian_filter1d(histogram.astype(np.float64), 2.0)))
    return np.asarray(np.median(view[candidates & (np.abs(light - peak) <= 4)], axis=0), np.float32)


def _deviation(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    mean = ndimage.gaussian_filter(values, sigma)
    return np.asarray(np.sqrt(np.maximum(ndimage.gaussian_filter(values**2, sigma) - mean**2, 0)), np.float32)


def _without_small(mask: Mask, least: float) -> Mask:
    """Fill holes and remove pieces smaller than ``least`` px; in a tile that is hardly larger, than its half and quarter."""
    mask = mask | ~_pieces(~mask, min(least, mask.size / 2))
    return _pieces(mask, min(least, mask.size / 4))


def _pieces(mask: Mask, least: float) -> Mask:
    """The connected parts of a mask of at least so many px."""
    pieces, count = ndimage.label(mask)
    large = np.bincount(pieces.ravel(), minlength=count + 1) >= least
    large[0] = False
    return np.asarray(large[pieces])


def sample(mask: Mask, canvas: tuple[int, int], box: Box, cell_px: int) -> Mask:
    """Read a slide's tissue at the centres of the cells of ``box`` on the slide resized to ``canvas`` px."""
    rows = (np.arange(box.y0, box.y1) + 0.5) * cell_px * mask.shape[0] / canvas[0]
    columns = (np.arange(box.x0, box.x1) + 0.5) * cell_px * mask.shape[1] / canvas[1]
    y = np.clip(rows.astype(np.int64), 0, mask.shape[0] - 1)
    x = np.clip(columns.astype(np.int64), 0, mask.shape[1] - 1)
    return mask[np.ix_(y, x)]
