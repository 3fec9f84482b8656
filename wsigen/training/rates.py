"""Learning rates as functions of the step: nothing to store, nothing to restore."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["one-cycle", "cosine", "constant"]

RISE, START, END = 0.3, 1 / 25, 1e-4
"""One cycle: share of the steps in which the rate rises, its first value over the peak, its last over the first."""

FLOOR = 0.01
"""Cosine: the last rate over the peak."""


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int, warmup: int = 0) -> float:
    """Learning rate of a step.

    Parameters
    ----------
    schedule:
        ``one-cycle``: Smith's policy, the rates of torch's ``OneCycleLR`` with its defaults (DiffInfinite trains with it).
        That class by default cycles momentum as well (Adam's beta1 from 0.95 to 0.85 and back); here betas stay as given.
        ``cosine``: linear warm-up, then half a cosine to 1 % of the peak. ``constant``: warm-up, then the peak.
    peak:
        The highest rate.
    step, steps:
        0 .. steps - 1.
    warmup:
        Steps of linear rise; not used by ``one-cycle``.
    """
    if schedule == "one-cycle":
        return _one_cycle(peak, step, steps)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule == "constant":
        return peak * rise
    return peak * rise * (FLOOR + (1.0 - FLOOR) * _half_cosine(step / max(1, steps)))


def _one_cycle(peak: float, step: int, steps: int) -> float:
    top = RISE * steps - 1.0
    first = peak * START
    if step <= top:
        return peak + (first - peak) * _half_cosine(step / top)
    last = first * END
    share = (step - top) / max(steps - 1.0 - top, 1e-9)
    return last + (peak - last) * _half_cosine(min(share, 1.0))


def _half_cosine(share: float) -> float:
    """1 at share 0, 0 at share 1."""
    return 0.5 * (1.0 + math.cos(math.pi * share))
