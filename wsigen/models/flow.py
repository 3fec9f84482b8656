"""Flow matching as the variance-preserving diffusion that it is, up to a scale of the state.

A flow model (Lipman et al. 2023; "rectified flow", Liu et al. 2023) knows straight lines from a picture to noise,
``0 <= s <= 1``, and predicts their velocity::

    u = (1 - s) x0 + s eps,    v = eps - x0,    x0 = u - s v

Divided by ``n = sqrt((1 - s)^2 + s^2)`` the state u is one of the states that all solvers, modes and held pixels here work on::

    y = u / n = sqrt(abar) x0 + sqrt(1 - abar) eps,    abar = (1 - s)^2 / n^2

So a flow model is a network that predicts x0 from y. A step of DDIM without noise is then a step of Euler's method along the
line: both move on a straight line through the same x0 and eps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.models.network_config import Config

EULER = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True, eq=False)
class Flow:
    """Where on its lines a flow model was trained.

    Attributes
    ----------
    sigmas : ndarray
        float64, s of each training timestep, rising to 1. The network is told ``s N``, N being their number.
    """

    sigmas: NDArray[np.float64]

    @cached_property
    def abar(self) -> NDArray[np.float64]:
        """Noise levels of the states y, one per training timestep, decreasing to 0."""
        return (1.0 - self.sigmas) ** 2 / self._norms**2

    @cached_property
    def _norms(self) -> NDArray[np.float64]:
        return np.hypot(1.0 - self.sigmas, self.sigmas)

    def time(self, timestep: int) -> float:
        """What the network is told at a training timestep."""
        return float(self.sigmas[timestep] * len(self.sigmas))

    def state(self, y: NDArray[np.float32], timestep: int) -> NDArray[np.float32]:
        """The state u of the model at a state y, any shape."""
        return y * np.float32(self._norms[timestep])

    def clean(self, u: NDArray[np.float32], velocity: NDArray[np.float32], timestep: int) -> NDArray[np.float32]:
        """x0 by the velocity that was predicted at u."""
        return u - np.float32(self.sigmas[timestep]) * velocity


def is_flow(scheduler: Config) -> bool:
    """Whether the config of a scheduler speaks of flow matching."""
    return "FlowMatch" in str(scheduler.get("_class_name")) or bool(scheduler.get("use_flow_sigmas"))


def flow_of(scheduler: Config) -> Flow:
    """The flow that a scheduler's config describes: s of a timestep t is ``k r / (1 + (k - 1) r)``, r = (t + 1) / N, k its
    shift (Esser et al. 2024, eq. 23)."""
    count = int(scheduler.get("num_train_timesteps") or 1000)
    shift: Any = scheduler.get("shift" if "FlowMatch" in str(scheduler.get("_class_name")) else "flow_shift")
    shift = 1.0 if shift is None else float(shift)
    share = np.arange(1, count + 1) / count
    return Flow(shift * share / (1.0 + (shift - 1.0) * share))
