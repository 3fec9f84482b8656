"""Conditions: what a model call of one crop is conditioned on, and which calls a crop needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.models.card import BundleCard

ClassMap = NDArray[np.uint8]
GridWindow = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Condition:
    """What is said of the tissue of one crop; each field is one kind of condition, and all of them None is the null condition.

    Attributes
    ----------
    label : int or None
        Index of the one class of the whole crop.
    class_map : ndarray or None
        A class per pixel: uint8 ``(p, p)``, ``UNKNOWN`` where it is not known.
    grid : ndarray or None
        What the crop looks like, standardised: float32 ``(D + 1, p, p)``, a cell for each latent px, or ``(D + 1, m, m)``, the
        parts of a window that is told by tokens; the last channel is 1 where that is known.
    """

    label: int | None = None
    class_map: ClassMap | None = None
    grid: GridWindow | None = None


NULL = Condition()
"""The null condition of guidance."""


def conditions_of(card: BundleCard, class_map: ClassMap, grid: GridWindow | None = None) -> list[tuple[Condition, Mask | None]]:
    """List the conditions of a crop's model calls, each with the pixels that take its prediction.

    * ``class-map``: one call that sees the map; ``NULL`` if the whole map is unknown.
    * ``class-tokens``, ``text``: one call per class present, ascending; unknown pixels take the null prediction. Pixels of
      background have no call of their own (they are held at glass): they go with the first call.
    * ``none``: one null call.

    Parameters
    ----------
    card : BundleCard
        Says which kind of condition the network takes.
    class_map : ndarray
        uint8 ``(p, p)`` of indices into the card's classes, or ``UNKNOWN``.
    grid : ndarray, optional
        See `Condition`; every call sees it.

    Returns
    -------
    list of (Condition, ndarray or None)
        The masks, bool ``(p, p)``, partition the crop; None stands for all of it (a single call).
    """
    kind = card.conditioning.kind
    unknown = NULL if grid is None else Condition(grid=grid)
    if kind == "none":
        return [(unknown, None)]
    if kind == "class-map":
        return [(unknown if bool((class_map == UNKNOWN).all()) else Condition(class_map=class_map, grid=grid), None)]
    background = [i for i, c in enumerate(card.classes) if c.background]
    labels = [int(v) for v in np.unique(class_map) if v not in background]
    conditions = [unknown if label == UNKNOWN else Condition(label=label, grid=grid) for label in labels]
    if len(conditions) <= 1:
        return [(conditions[0] if conditions else unknown, None)]
    masks = [class_map == label for label in labels]
    masks[0] |= np.isin(class_map, background)
    return list(zip(conditions, masks, strict=True))
