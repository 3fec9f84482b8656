"""The grid of mean colours: each cell is the mean colour of its pixels.

The simplest of all encoders, and the one of the embedded model. At cells of one latent px it brings back the architecture of
tissue (nests, bands, vessels) that class maps cannot say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NAME = "mean-colour"
DIMENSION = 3


def mean_colours(images: NDArray[np.uint8], cell_px: int) -> NDArray[np.float32]:
    """Encode pictures.

    Parameters
    ----------
    images : ndarray
        uint8 ``(B, H, W, 3)`` RGB; H and W are multiples of ``cell_px``.
    cell_px : int
        Side of a cell in px.

    Returns
    -------
    ndarray
        float32 ``(B, 3, H / cell_px, W / cell_px)`` in [-1, 1].
    """
    count, height, width, _ = images.shape
    cells = images.reshape(count, height // cell_px, cell_px, width // cell_px, cell_px, 3)
    means = cells.mean(axis=(2, 4), dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(means.transpose(0, 3, 1, 2))
