"""Put made pixels beside those of a slide that stays: its colour is carried over the border, and no pixel of it changes.

An autoencoder does not bring colour back exactly: what it decodes is a little paler or warmer than the slide, by much the same
over hundreds of pixels, and that step can be seen along a border. Where both are known, outside, their difference is taken; its
low frequencies are added inside and fade away from the border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]

CARRIED_PX = 96
"""How far from the border its colour is carried, px."""

SMOOTH_PX = 20.0
"""Standard deviation of the Gaussian that parts low frequencies from detail, px: larger than nuclei."""

MIXED_PX = 16
"""How far from the border the slide's own detail fades out, px, where there is some and it may show."""

REACH_PX = 160
"""How far a pixel's surroundings decide it, px."""

_CUT = 3.0
"""Standard deviations after which the Gaussian is cut off."""


def blended(own: RGB, made: RGB, kept: Mask, mixed: Mask) -> RGB:
    """Join the pixels of a slide and those that are made beside it.

    Parameters
    ----------
    own, made : ndarray
        uint8 ``(h, w, 3)``; ``own`` says nothing where neither ``kept`` nor ``mixed`` is set.
    kept : ndarray
        Which pixels of the slide stay, bool ``(h, w)``.
    mixed : ndarray
        Where its detail may still show beside the border, bool ``(h, w)``: nowhere that something is to be replaced.

    Returns
    -------
    ndarray
        uint8 ``(h, w, 3)``, exactly ``own`` where it is kept.
    """
    if kept.all() or not kept.any():
        return own if kept.all() else made
    distance = ndimage.distance_transform_edt(~kept).astype(np.float32)[..., None]
    near = np.asarray(kept, np.float32)
    weight = ndimage.gaussian_filter(near, SMOOTH_PX, truncate=_CUT)[..., None]
    apart = (own.astype(np.float32) - made.astype(np.float32)) * near[..., None]
    carried = ndimage.gaussian_filter(apart, (SMOOTH_PX, SMOOTH_PX, 0), truncate=_CUT) / np.maximum(weight, 1e-6)
    certain = np.clip(weight / 0.02, 0.0, 1.0)  # far from the border few pixels say something
    out = made + _faded(distance / CARRIED_PX) * certain * carried
    share = np.where(mixed[..., None], _faded(distance / MIXED_PX), 0.0)
    out = out + share * (own - out)
    return np.where(kept[..., None], own, np.clip(np.rint(out), 0, 255)).astype(np.uint8)


def _faded(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 at 0, 0 from 1 on, smooth at both ends."""
    t = np.clip(1.0 - share, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)
