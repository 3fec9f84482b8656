"""Guidance: the predictions of one crop, one per label, become one prediction (DiffInfinite eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def guided(per_label: Sequence[tuple[Array, Mask | None]], null: Array | None, w: float) -> Array:
    """Give each pixel its own label's prediction, pushed away from the null one.

    ::

        (1 + w) eps(c) - w eps(null)

    The null prediction does not depend on the label, so all labels of a crop share it.

    Parameters
    ----------
    per_label:
        Predictions float32 ``[C, p, p]``, each with the pixels ``[p, p]`` that are its own; the masks
        partition the crop. A mask of None stands for all pixels.
    null:
        Prediction under the null condition, or None for no guidance.
    w:
        Strength; 0 gives the label's own prediction.

    Returns
    -------
    ndarray
        float32 ``[C, p, p]``, newly made unless one label covers the crop without guidance.

    Raises
    ------
    ValueError
        If there is no prediction.
    """
    if not per_label:
        raise ValueError("guidance needs at least one prediction")
    own = per_label[0][0]
    for prediction, mask in per_label[1:]:
        own = prediction if mask is None else np.where(mask, prediction, own)
    if null is None or w == 0.0:
        return own
    return np.float32(1.0 + w) * own - np.float32(w) * null
