"""Scores of predictions from their confusion matrix, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one trained network on one test set.

    Attributes
    ----------
    balanced_accuracy, f1:
        Means over the classes the test set has: of the recall, and of F1 (macro).
    recall:
        Of each class; NaN where the test set has none of it.
    """

    balanced_accuracy: float
    f1: float
    recall: list[float]


def scores(confusion: NDArray[np.int64]) -> Scores:
    """Score a confusion matrix, int64 ``[classes, classes]`` (true, predicted) of crops or of pixels.

    scikit-learn gets one sample a cell of the matrix, weighted by its count: exact, however many pixels there are.
    """
    from sklearn.metrics import balanced_accuracy_score, f1_score

    true, predicted = (i.ravel() for i in np.indices(confusion.shape))
    counted = confusion.ravel() > 0
    true, predicted, weight = true[counted], predicted[counted], confusion.ravel()[counted]
    present = np.flatnonzero(confusion.sum(axis=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class that was predicted and is not there
        balanced = balanced_accuracy_score(true, predicted, sample_weight=weight)
    f1 = f1_score(true, predicted, labels=present, average="macro", sample_weight=weight, zero_division=0.0)
    total = confusion.sum(axis=1)
    recall = np.divide(np.diag(confusion), total, out=np.full(len(total), np.nan), where=total > 0)
    return Scores(float(balanced), float(f1), [float(v) for v in recall])


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and deviation (of one, n - 1) over runs; the deviation of one run is NaN."""

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        deviation = "" if np.isnan(self.deviation) else f" +- {self.deviation:.3f}"
        return "-" if np.isnan(self.mean) else f"{self.mean:.3f}{deviation}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of the numbers that are there."""
    kept = np.array([v for v in values if not np.isnan(v)], np.float64)
    mean = float(kept.mean()) if len(kept) else float("nan")
    return Spread(mean, float(kept.std(ddof=1)) if len(kept) > 1 else float("nan"), len(kept))
