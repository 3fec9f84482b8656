"""Timesteps, noise levels, guidance and the reverse step.

Forward noising (DDPM, Ho et al. 2020, eq. 4; PathUp prints ``(1 - abar) eps``, which under-noises)::

    y_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps

A run makes S transitions between S + 1 states; state s lies at noise level ``abar[s]``, the last one at abar = 1, without
noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a network may predict, in diffusers' words."""

_SMALLEST_ABAR = 1e-10
"""Schedules rescaled to zero terminal SNR end at 0, where an epsilon prediction says nothing of x0."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The S transitions of a run.

    Attributes
    ----------
    timesteps : tuple of int
        The network's input at transition s, on its training scale (e.g. 999 .. 0); S values.
    abar : tuple of float
        Noise level of state s; S + 1 values, ``abar[S] == 1``.
    """

    timesteps: tuple[int, ...]
    abar: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.timesteps) <= 1000 or len(self.abar) != len(self.timesteps) + 1:
            raise ValueError(f"{len(self.timesteps)} timesteps and {len(self.abar)} noise levels; 1 to 1000, and one more")
        if not all(0.0 <= abar <= 1.0 for abar in self.abar) or min(self.timesteps) < 0:
            raise ValueError("a timestep is below 0, or a noise level not in 0 .. 1")

    @property
    def steps(self) -> int:
        """Number of transitions."""
        return len(self.timesteps)


def make_schedule(abar_train: Sequence[float] | NDArray[np.float64], steps: int, strength: float = 1.0) -> Schedule:
    """Space ``steps`` transitions evenly below noise strength ``strength``, ending at abar = 1.

    "Trailing" spacing (Lin et al. 2024, "Common diffusion noise schedules ..."): the first timestep is the noisiest one,
    so that a start from pure noise is a start from what the network saw as pure noise.

    Parameters
    ----------
    abar_train : sequence of float
        Cumulative products of the training schedule, one per training timestep, decreasing.
    steps : int
        Transitions for strength 1; fewer are made for a smaller strength (``ceil(steps * strength)``), as the same
        distance between timesteps then covers a shorter way.
    strength : float
        Share of the training timesteps to start from, in (0, 1]; PathUp's t_i and ZoomLDM's "t = 500" are 0.5.

    Raises
    ------
    ValueError
        If steps or strength are out of range.
    """
    n = len(abar_train)
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength {strength} is outside (0, 1]")
    made = max(1, math.ceil(steps * strength - 1e-9))
    if steps < 1 or made > n:
        raise ValueError(f"{steps} steps: between 1 and the model's {n} training steps are possible")
    top = n * strength
    timesteps = tuple(max(0, round(top * (1.0 - s / made)) - 1) for s in range(made))
    if len(set(timesteps)) < made:
        raise ValueError(f"{steps} steps at strength {strength} need more timesteps than the model has; take fewer steps")
    levels = [max(float(abar_train[t]), _SMALLEST_ABAR) for t in timesteps]
    return Schedule(timesteps, (*levels, 1.0))


def add_noise(x0: Array, eps: Array, abar: float) -> Array:
    """Noise ``x0`` with ``eps``, both ``(C, h, w)``, to level ``abar`` (DDPM eq. 4)."""
    return np.float32(math.sqrt(abar)) * x0 + np.float32(math.sqrt(1.0 - abar)) * eps


def hold(y: Array, held: Mask, x0: Array, noise: Array, abar: float) -> Array:
    """Return ``y`` with the pixels that are still held at their known value noised to level ``abar``.

    A known pixel i is not denoised before step ``start(i)`` (0: at once; the number of steps: never). Until then it follows the
    forward process of its value, from one noise field for all steps, and is noised anew whenever it is read (RePaint, Lugmayr
    et al. 2022, eq. 8a, with a fixed eps)::

        y_s(i) = sqrt(abar_s) x_0(i) + sqrt(1 - abar_s) eps(i)        while s < start(i)

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


def guided(per_label: Sequence[tuple[Array, Mask | None]], null: Array | None, w: float) -> Array:
    """Give each pixel its own label's prediction, pushed away from the null one (DiffInfinite eq. 2).

    ::

        (1 + w) eps(c) - w eps(null)

    The null prediction does not depend on the label, so all labels of a crop share it.

    Parameters
    ----------
    per_label : sequence of (ndarray, ndarray or None)
        Predictions float32 ``(C, p, p)``, each with the pixels ``(p, p)`` that take it; the masks partition the crop. None
        stands for all pixels.
    null : ndarray or None
        Prediction under the null condition; None for no guidance.
    w : float
        Strength; 0 gives the label's own prediction.

    Returns
    -------
    ndarray
        float32 ``(C, p, p)``, newly made unless one label covers the crop without guidance.

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


def predict_x0(prediction: Array, y: Array, abar: float, kind: str, clip: float | None = None) -> Array:
    """Turn a network output at state ``y`` into its estimate of the clean latent.

    Parameters
    ----------
    prediction, y : ndarray
        float32, same shape.
    abar : float
        Noise level of ``y``.
    kind : str
        One of `PREDICTIONS`. ``v = sqrt(abar) eps - sqrt(1 - abar) x0`` (Salimans & Ho 2022).
    clip : float or None
        Clamp the result to ``[-clip, clip]`` if given (the bundle says so, never the code).
    """
    a, s = np.float32(math.sqrt(abar)), np.float32(math.sqrt(1.0 - abar))
    x0: Array
    if kind == "epsilon":
        x0 = np.divide(y - s * prediction, a, dtype=np.float32)
    elif kind == "v_prediction":
        x0 = a * y - s * prediction
    elif kind == "sample":
        x0 = prediction
    else:
        raise ValueError(f"prediction type {kind!r}: one of {', '.join(PREDICTIONS)} is possible")
    return x0 if clip is None else np.clip(x0, np.float32(-clip), np.float32(clip))


def extrapolate(x0: Array, previous: Array, abar_previous: float, abar: float, abar_next: float) -> Array:
    """The estimate a second-order step takes in place of ``x0`` (DPM-Solver++ (2M), Lu et al. 2022, algorithm 2).

    ::

        lambda = log(sqrt(abar) / sqrt(1 - abar)),    h = lambda_next - lambda,    r = (lambda - lambda_previous) / h
        D      = x0 + (x0 - previous) / (2 r)

    A DDIM step without noise that takes D for x0 is a step of the solver: both are exact for a constant x0, the solver also
    for one that changes linearly in lambda. The last step, to ``abar_next = 1``, is of first order: D = x0.

    Parameters
    ----------
    x0, previous : ndarray
        Merged estimates of this step and of the one before, same shape.
    abar_previous, abar, abar_next : float
        Noise levels of the previous state, this one and the next.
    """
    if abar_next >= 1.0:
        return x0
    before, here, there = (0.5 * math.log(a / (1.0 - a)) for a in (abar_previous, abar, abar_next))
    share = 0.5 * (there - here) / (here - before)
    return np.asarray(x0 + np.float32(share) * (x0 - previous), dtype=np.float32)


def ddim_sigma(abar: float, abar_next: float, eta: float) -> float:
    """Standard deviation of the noise a step adds (DDIM, Song et al. 2021, eq. 16); 0 for eta = 0 and for the last step."""
    if eta == 0.0 or abar_next >= 1.0:
        return 0.0
    return eta * math.sqrt((1.0 - abar_next) / (1.0 - abar)) * math.sqrt(max(0.0, 1.0 - abar / abar_next))


def ddim_step(y: Array, x0: Array, abar: float, abar_next: float, eta: float = 0.0, noise: Array | None = None) -> Array:
    """Go from state ``y`` at level ``abar`` to level ``abar_next`` (DDIM, Song et al. 2021, eq. 12).

    ::

        eps    = (y - sqrt(abar) x0) / sqrt(1 - abar)
        y_next = sqrt(abar_next) x0 + sqrt(1 - abar_next - sigma^2) eps + sigma noise

    ``x0`` is the merged estimate of all crops: since the step is affine in it, merging estimates equals merging stepped
    crops, and with eta > 0 the noise is added once, after merging.

    Parameters
    ----------
    y, x0, noise : ndarray
        float32 ``(C, h, w)``; ``noise`` (standard normal) is needed where `ddim_sigma` is above 0.
    """
    if abar_next >= 1.0:
        return x0.astype(np.float32, copy=True)
    sigma = ddim_sigma(abar, abar_next, eta)
    eps = (y - np.float32(math.sqrt(abar)) * x0) / np.float32(math.sqrt(1.0 - abar))
    along = math.sqrt(max(0.0, 1.0 - abar_next - sigma**2))
    out = np.asarray(np.float32(math.sqrt(abar_next)) * x0 + np.float32(along) * eps, dtype=np.float32)
    if sigma > 0.0:
        if noise is None:
            raise ValueError(f"eta {eta} needs noise for this step")
        out += np.float32(sigma) * noise
    return out
