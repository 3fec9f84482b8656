"""Pixels that wait: glass, fixed regions and other pixels held at their start level.

``start(i)`` is the step at which pixel i joins the denoising (0: at once; the number of steps: never). Until then it follows
the forward process of its known value, from one noise field for all steps, re-noised on reading::

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
    """Return ``y`` with the held pixels put at level ``abar`` of their known value.

    Parameters
    ----------
    y:
        float32 ``[C, h, w]``; the values of held pixels are not looked at (they may be NaN).
    held:
        bool ``[h, w]``.
    x0:
        Known clean latent, ``[C, h, w]`` or ``[C, 1, 1]``.
    noise:
        The start field on the same box, ``[C, h, w]``.
    """
    return np.where(held[None], add_noise(x0, noise, abar), y)
