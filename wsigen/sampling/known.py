"""Known pixels: those that are not denoised, or only from a step on.

Bare glass, what lies around an edited region, and a slide that is continued beyond its edges are one thing. A pixel i has a
known clean value x_0(i) and a step ``start(i)`` at which it is let go; until then it follows the forward process of its value
(`wsigen.sampling.schedule.hold`), so that what is denoised beside it sees it at its own noise level (RePaint, Lugmayr et al.
2022; DiffInfinite, Aversa et al. 2023, uses it to continue a picture)::

    start = 0        denoised from noise at once
    0 < start < S    begins as its own value, noised to the level of that step: altered, not replaced (SDEdit, Meng et al. 2022)
    start = NEVER    kept
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.sampling.schedule import Schedule

Array = NDArray[np.float32]
Starts = NDArray[np.uint16]

NEVER = 2**16 - 2
"""The step at which a pixel of a slide that stays is let go. No run has so many."""

GLASS = 2**16 - 1
"""The same of bare glass, whose value no slide gives."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the pixels of a box.

    Attributes
    ----------
    x0 : ndarray
        Clean values, float32 ``(C, h, w)``, or ``(C, 1, 1)`` where they are alike; those of pixels that start at 0 say nothing.
    start : ndarray
        Step from which a pixel is denoised, uint16 ``(h, w)``.
    """

    x0: Array
    start: Starts

    def held(self, step: int) -> NDArray[np.bool_]:
        """Which pixels still follow the forward process of their value at a step, bool ``(h, w)``."""
        return np.asarray(self.start > step)


def first_step(schedule: Schedule, highest: float, strength: float) -> int:
    """The step at which a pixel that is re-noised to ``strength`` begins; one step is left at least.

    Parameters
    ----------
    highest : float
        Share of the training timesteps that the schedule begins with: the strength of the pass.
    strength : float
        Of the pixel, in (0, 1]; 1 replaces it.
    """
    most = strength * (schedule.timesteps[0] + 1) / highest
    later = sum(timestep + 1 > most + 0.5 for timestep in schedule.timesteps)
    return min(later, schedule.steps - 1)


def graded_starts(distance: NDArray[np.float64], margin: float, first: int, steps: int) -> Starts:
    """Steps at which pixels are let go around those that are made anew: later the farther away they are.

    So a margin changes less and less outwards, and has no border of its own.

    Parameters
    ----------
    distance : ndarray
        From the next pixel that is made anew, ``(h, w)``; 0 on those.
    margin : float
        Where pixels are kept, in the same unit.
    first, steps : int
        Step at which those are let go, and the number of steps.

    Returns
    -------
    ndarray
        uint16 ``(h, w)``: ``first`` on what is made anew, up to ``steps - 1`` in the margin, `NEVER` beyond it.
    """
    share = np.minimum(distance, margin) / margin if margin > 0 else np.where(distance > 0, 1.0, 0.0)
    graded = first + np.ceil(share * (steps - first))
    return np.where(graded >= steps, NEVER, graded).astype(np.uint16)
