"""How far a training stage has come: by wall time, or by steps where a repeatable run is wanted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    """The end of a stage, and how much of it has been used.

    Attributes
    ----------
    minutes : wall time of the whole stage, over all resumed runs
    steps : number of steps instead of a wall time; the learning rate then depends on the step alone
    elapsed_s : seconds used by the runs before this one
    """

    minutes: float
    steps: int | None = None
    elapsed_s: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def used_s(self) -> float:
        """Seconds used so far, over all resumed runs."""
        return self.elapsed_s + time.monotonic() - self._started

    def progress(self, step: int) -> float:
        """Share of the stage that is done, 0 to 1."""
        done = step / self.steps if self.steps is not None else self.used_s() / (60.0 * self.minutes)
        return min(done, 1.0)


def cosine_rate(peak: float, progress: float, step: int, warmup: int = 20, floor: float = 0.01) -> float:
    """Learning rate: linear warm-up over ``warmup`` steps, then half a cosine to ``floor * peak``."""
    decay = floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak * decay * min(1.0, (step + 1) / warmup)
