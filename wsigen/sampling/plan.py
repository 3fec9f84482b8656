"""What a sampling mode is: which windows a step runs, and how their predictions are weighted.

Both papers' samplers are one equation. With crops k of side p and the step's estimate x0_k on crop k::

    x0(i) = sum over k of  w_k(i) x0_k(i)        with  sum over k of w_k(i) = 1  at every pixel i

(PathUp eq. 6-7 with weights by distance, DiffInfinite algorithm 1 with weights 0 and 1). A mode is a ``CropPlan``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box


@dataclass(frozen=True, eq=False, slots=True)
class Crop:
    """A square window of the latent canvas and its share of every pixel in it.

    Attributes
    ----------
    box:
        Latent pixels, inside the canvas, side p.
    weight:
        float32 ``[p, p]`` in [0, 1]; over all crops of a step the weights of a pixel add up to 1.
    """

    box: Box
    weight: NDArray[np.float32]


class CropPlan(Protocol):
    """The crops of every step; a pure function of its fields, so any worker finds the same ones."""

    @property
    def side(self) -> int:
        """Crop side p in latent pixels (even)."""
        ...

    def crops(self, step: int, box: Box) -> list[Crop]:
        """Every crop of ``step`` whose centre lies in ``box``, in a fixed order."""
        ...


def centre(box: Box) -> tuple[int, int]:
    """The pixel that decides which chunk a crop belongs to."""
    return (box.y0 + box.y1) // 2, (box.x0 + box.x1) // 2
