"""Known pixels: glass, fixed regions and others whose clean value is given.

A known pixel i is not denoised before step ``start(i)`` (0: at once; the number of steps: never). Until then it follows the
forward process of its value, from one noise field for all steps, and is noised anew whenever it is read (RePaint, Lugmayr et
al. 2022, eq. 8a, with a fixed eps)::

    y_s(i) = sqrt(abar_s) x_0(i) + sqrt(1 - abar_s) eps(i)        while s < start(i)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.sampling.schedule import add_noise


def hold(
    y: NDArray[np.float32],
    held: NDArray[np.bool_],
    x0: NDArray[np.float32],
    noise: NDArray[np.float32],
    abar: float,
) -> NDArray[np.float32]:
    """Return ``y`` with the pixels that are still held at their known value noised to level ``abar``.

    Parameters
    ----------
    y : ndarray
        float32 ``(C, h, w)``; the values of held pixels are not looked at (they may be NaN).
    held : ndarray
        bool ``(h, w)``.
    x0 : ndarray
        Known clean latent, ``(C, h, w)`` or ``(C, 1, 1)``.
    noise : ndarray
        The start field on the same box, ``(C, h, w)``.
    abar : float
        Noise level of ``y``.
    """
    return np.where(held[None], add_noise(x0, noise, abar), y)
