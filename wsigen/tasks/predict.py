"""The model's estimate of clean latents on a list of crops, in batches of one fixed shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsigen.models.conditioning import NULL, Condition, conditions_of
from wsigen.models.model import Model
from wsigen.sampling.guidance import guided
from wsigen.sampling.schedule import predict_x0

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What all crops of a step share: timestep, noise level, guidance w, magnification level, crops per call."""

    timestep: int
    abar: float
    guidance: float
    level: int
    batch: int


@dataclass(slots=True)
class _Pending:
    """A crop whose model calls are not all back yet."""

    y: Array
    masks: list[NDArray[np.bool_] | None]
    needs_null: bool
    outputs: list[Array] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.outputs) == len(self.masks) + self.needs_null


def calls_of_crop(model: Model, classes: NDArray[np.uint8], guidance: float) -> list[Condition]:
    """The conditions of a crop's model calls: one per label present, and one null pass shared by all under guidance."""
    conditions = [condition for condition, _ in conditions_of(model.card, classes)]
    return [*conditions, NULL] if _needs_null(conditions, guidance) else conditions


def _needs_null(conditions: Sequence[Condition], guidance: float) -> bool:
    return guidance > 0.0 and any(c is not NULL for c in conditions)


def estimate_crops(
    model: Model, settings: StepSettings, crops: Sequence[tuple[Array, NDArray[np.uint8]]]
) -> Iterator[Array]:
    """Yield the guided estimate x0 of every crop, in order.

    Every batch has exactly ``settings.batch`` rows (the last is padded by repeating its last row), as the shape of a
    batch may decide the last bits of a result.

    Parameters
    ----------
    crops:
        Pairs of y[s] float32 ``[C, p, p]`` and class map uint8 ``[p, p]``.

    Yields
    ------
    ndarray
        float32 ``[C, p, p]``.
    """
    pending: list[_Pending] = []
    calls: list[tuple[_Pending, Condition]] = []
    for y, classes in crops:
        pairs = conditions_of(model.card, classes)
        needs_null = _needs_null([c for c, _ in pairs], settings.guidance)
        crop = _Pending(y, [mask for _, mask in pairs], needs_null)
        pending.append(crop)
        calls += [(crop, condition) for condition, _ in pairs] + ([(crop, NULL)] if needs_null else [])
    for begin in range(0, len(calls), settings.batch):
        _call(model, settings, calls[begin : begin + settings.batch])
        while pending and pending[0].complete:
            yield _finish(model, settings, pending.pop(0))


def _call(model: Model, settings: StepSettings, calls: list[tuple[_Pending, Condition]]) -> None:
    rows = calls + [calls[-1]] * (settings.batch - len(calls))
    latents = np.stack([crop.y for crop, _ in rows])
    outputs = model.predict(latents, settings.timestep, [condition for _, condition in rows], settings.level)
    for (crop, _), output in zip(calls, outputs, strict=False):
        crop.outputs.append(output)


def _finish(model: Model, settings: StepSettings, crop: _Pending) -> Array:
    null = crop.outputs[-1] if crop.needs_null else None
    per_label = list(zip(crop.outputs[: len(crop.masks)], crop.masks, strict=True))
    prediction = guided(per_label, null, settings.guidance)
    return predict_x0(prediction, crop.y, settings.abar, model.prediction_type, model.clip)
