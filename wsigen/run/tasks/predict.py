"""The model's estimate of clean latents on a list of crops, in batches of one fixed shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsigen.models.card import BundleCard
from wsigen.models.conditioning import NULL, Condition, conditions_of
from wsigen.models.model import Denoiser
from wsigen.sampling.schedule import guided, predict_x0

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What all crops of a step share: timestep, noise level, guidance w, magnification level, crops per call."""

    timestep: int
    abar: float
    guidance: float
    level: int
    batch: int


@dataclass(frozen=True, slots=True)
class View:
    """What a crop shows: y[s] float32 ``(C, p, p)``, its class map uint8 ``(p, p)``, its `Condition.grid`."""

    y: Array
    classes: NDArray[np.uint8]
    grid: Array | None = None


@dataclass(slots=True)
class _Pending:
    """A crop whose model calls are not all back yet."""

    y: Array
    masks: list[NDArray[np.bool_] | None]
    calls: int
    null: int | None  # which of the calls is the null pass of guidance
    outputs: list[Array] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.outputs) == self.calls


def calls_of_crop(card: BundleCard, classes: NDArray[np.uint8], guidance: float, grid: Array | None = None) -> list[Condition]:
    """The conditions of a crop's model calls: one per label present, and one null pass shared by all under guidance."""
    return _with_null(card, [condition for condition, _ in conditions_of(card, classes, grid)], guidance)[0]


def _with_null(card: BundleCard, conditions: list[Condition], guidance: float) -> tuple[list[Condition], int | None]:
    """Add the null pass if guidance needs one and unknown pixels do not bring it already; also tell its place.

    A grid that is told by channels stays in it: guidance is away from "any class", not away from the picture that the slide
    follows. Tokens go, as in ZoomLDM.
    """
    kept = card.grid is not None and card.grid.told == "channels"
    null = Condition(grid=conditions[0].grid) if kept else NULL
    places = [p for p, c in enumerate(conditions) if c.label is None and c.class_map is None and (kept or c.grid is None)]
    if guidance == 0.0 or len(places) == len(conditions):
        return conditions, None
    return (conditions, places[0]) if places else ([*conditions, null], len(conditions))


def estimate_crops(model: Denoiser, settings: StepSettings, crops: Sequence[View]) -> Iterator[Array]:
    """Yield the guided estimate x0 of every crop, in order.

    Every batch has exactly ``settings.batch`` rows (the last is padded by repeating its last row), as the shape of a
    batch may decide the last bits of a result.

    Parameters
    ----------
    crops : sequence of View
        What they show.

    Yields
    ------
    ndarray
        float32 ``(C, p, p)``.
    """
    pending: list[_Pending] = []
    calls: list[tuple[_Pending, Condition]] = []
    for view in crops:
        pairs = conditions_of(model.card, view.classes, view.grid)
        conditions, null = _with_null(model.card, [condition for condition, _ in pairs], settings.guidance)
        crop = _Pending(view.y, [mask for _, mask in pairs], len(conditions), null)
        pending.append(crop)
        calls += [(crop, condition) for condition in conditions]
    for begin in range(0, len(calls), settings.batch):
        _call(model, settings, calls[begin : begin + settings.batch])
        while pending and pending[0].complete:
            yield _finish(model, settings, pending.pop(0))


def _call(model: Denoiser, settings: StepSettings, calls: list[tuple[_Pending, Condition]]) -> None:
    rows = calls + [calls[-1]] * (settings.batch - len(calls))
    latents = np.stack([crop.y for crop, _ in rows])
    outputs = model.predict(latents, settings.timestep, [condition for _, condition in rows], settings.level)
    for (crop, _), output in zip(calls, outputs, strict=False):
        crop.outputs.append(output)


def _finish(model: Denoiser, settings: StepSettings, crop: _Pending) -> Array:
    null = None if crop.null is None else crop.outputs[crop.null]
    per_label = list(zip(crop.outputs, crop.masks, strict=False))  # an added null pass comes last and has no mask
    prediction = guided(per_label, null, settings.guidance)
    return predict_x0(prediction, crop.y, settings.abar, model.prediction_type, model.clip)
