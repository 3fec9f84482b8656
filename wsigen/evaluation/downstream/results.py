"""What a downstream evaluation is asked and finds: every run's confusion matrix, their means and deviations over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.sides.sides import Side

Task = Literal["classification", "segmentation"]
Arm = Literal["real", "synthetic", "both"]
ARMS: tuple[Arm, ...] = ("real", "synthetic", "both")
"""What a network is trained on; tests are always real."""

LEAST_OF_A_CLASS = 20
"""Crops of a class on both sides below which it is left out."""

FOLDS = "REAL, folds of other patients"
"""Name of the test on REAL itself."""

READ = "SYNTHETIC, its class maps"
"""Name of the reading of SYNTHETIC."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, and how: the parameters of `wsigen.evaluate_downstream`, which describes them.

    ``scratch`` is the folder of the file that holds the pixels of all crops; None: the system's place.

    Raises
    ------
    EvaluationError
        For what cannot be done whatever the sides are, with the option to change.
    """

    real: Path
    synthetic: Path
    tests: tuple[Path, ...] = ()
    task: Task = "classification"
    network: str = "small"
    folds: int = 5
    ratio: float = 1.0
    seeds: int = 3
    epochs: int = 10
    crops: int = 1000
    size_px: int = 256
    mpp: float | None = None
    real_mpp: float | None = None
    synthetic_mpp: float | None = None
    test_mpp: float | None = None
    groups: str | None = None
    batch: int = 32
    seed: int = 0
    device: str = "cpu"
    scratch: Path | None = None
    layout_names: dict[str, str | None] = field(default_factory=dict)
    arms: tuple[Arm, ...] = ARMS

    def __post_init__(self) -> None:
        if self.task not in ("classification", "segmentation"):
            raise EvaluationError(f"task {self.task!r}: known are classification and segmentation")
        if self.folds == 1 or self.folds < 0:
            raise EvaluationError(f"--folds {self.folds}: give 2 or more, or 0 to test on --test alone")
        if self.folds == 0 and not self.tests:
            raise EvaluationError("--folds 0 trains on all of REAL, so nothing is left to test on; give --test, or --folds 5")
        if not 0 < self.ratio <= 100:
            raise EvaluationError(f"--ratio {self.ratio:g}: give synthetic crops per real one, above 0 and at most 100")
        if self.size_px < 32:
            raise EvaluationError(f"crops of {self.size_px} px are too small to learn from; --size is 32 px at least")
        for name in ("seeds", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise EvaluationError(f"--{name} {getattr(self, name)}: 1 at least")
        if self.crops < 2 * LEAST_OF_A_CLASS:
            raise EvaluationError(f"--crops {self.crops}: too few to learn from; {2 * LEAST_OF_A_CLASS} at least")


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one trained network on one test set.

    Attributes
    ----------
    balanced_accuracy, f1 : float
        Means over the classes the test set has: of the recall, and of F1 (macro).
    recall : list of float
        Of each class; NaN where the test set has none of it.
    """

    balanced_accuracy: float
    f1: float
    recall: list[float]


def scores(confusion: NDArray[np.int64]) -> Scores:
    """Score a confusion matrix, int64 ``(classes, classes)`` (true, predicted) of crops or of pixels."""
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall = np.divide(right, true, out=np.full(len(true), np.nan), where=true > 0)
    f1 = 2 * right / np.maximum(true + predicted, 1)
    return Scores(float(np.nanmean(recall)), float(f1[true > 0].mean()), recall.tolist())


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and deviation (of one, n - 1) over runs; the deviation of one run is NaN."""

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        deviation = "" if np.isnan(self.deviation) else f" ± {self.deviation:.3f}"
        return "-" if np.isnan(self.mean) else f"{self.mean:.3f}{deviation}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of the numbers that are there."""
    kept = np.array([v for v in values if not np.isnan(v)], np.float64)
    mean = float(kept.mean()) if len(kept) else float("nan")
    return Spread(mean, float(kept.std(ddof=1)) if len(kept) > 1 else float("nan"), len(kept))


@dataclass(frozen=True, eq=False)
class Run:
    """One trained network on one test set.

    Attributes
    ----------
    fold : int or None
        Which part of REAL it was not trained on, or None: it saw none of REAL (the synthetic arm), or all of it.
    tested : int or None
        The fold of REAL it was tested on, or None (``test`` names another side).
    confusion : ndarray
        int64 ``(classes, classes)`` (true, predicted) of crops or labelled pixels.
    """

    arm: Arm
    seed: int
    fold: int | None
    test: str
    tested: int | None
    confusion: NDArray[np.int64]

    @property
    def scores(self) -> Scores:
        """Balanced accuracy, F1, recalls."""
        return scores(self.confusion)


@dataclass
class Downstream:
    """Everything a downstream evaluation found.

    Attributes
    ----------
    sides, counts : dict
        By name: ``real``, ``synthetic``, and the tests by their paths; crops of each class.
    steps : int
        Optimiser steps of every network, whatever its arm.
    used : tuple of int
        Real and synthetic crops a network is trained on (the mean over folds of the former).
    readings : list of Run
        Of segmentation: the synthetic crops, read by the networks that were trained on real ones (`label_fidelity`).
    examples : dict
        By side and class: uint8 ``(P, P, 3)`` of some crops.
    """

    settings: Settings
    mpp: float | None
    classes: list[str]
    sides: dict[str, Side]
    counts: dict[str, dict[str, int]]
    parameters: int = 0
    steps: int = 0
    used: tuple[int, int] = (0, 0)
    folds: list[list[str]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    readings: list[Run] = field(default_factory=list)
    examples: dict[str, dict[str, list[NDArray[np.uint8]]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def tests(self) -> list[str]:
        """Names of the test sets in order."""
        return list(dict.fromkeys(r.test for r in self.runs))

    def of(self, arm: Arm, test: str) -> list[Run]:
        """The runs of an arm on a test set."""
        return [r for r in self.runs if (r.arm, r.test) == (arm, test)]

    def by_seed(self, arm: Arm, test: str) -> dict[int, Scores]:
        """Scores of each seed, of the confusions of all its folds together: every real crop is tested once."""
        return _pooled((r.seed, r) for r in self.of(arm, test))

    def by_fold(self, arm: Arm, test: str) -> dict[int | None, Scores]:
        """Scores of each fold, of the confusions of all seeds together."""
        return _pooled((r.fold if r.tested is None else r.tested, r) for r in self.of(arm, test))

    def score(self, arm: Arm, test: str, name: str) -> Spread:
        """Mean and deviation over seeds of ``balanced_accuracy`` or ``f1`` of all folds together."""
        return spread([getattr(s, name) for s in self.by_seed(arm, test).values()])

    def recall(self, arm: Arm, test: str, index: int) -> Spread:
        """The same of the recall of a class."""
        return spread([s.recall[index] for s in self.by_seed(arm, test).values()])

    def fold_spread(self, arm: Arm, test: str, name: str) -> float:
        """Deviation over folds (other patients), of the scores of all seeds together; NaN for fewer than two folds."""
        return spread([getattr(s, name) for s in self.by_fold(arm, test).values()]).deviation

    def gain(self, arm: Arm, test: str, name: str) -> Spread:
        """Mean and deviation over seeds of the difference to the real arm's networks of the same seed."""
        mine, real = self.by_seed(arm, test), self.by_seed("real", test)
        return spread([getattr(mine[seed], name) - getattr(real[seed], name) for seed in mine if seed in real])


K = TypeVar("K")


def _pooled(runs: Iterable[tuple[K, Run]]) -> dict[K, Scores]:
    """Score the sum of the confusions of the runs of each key."""
    sums: dict[K, NDArray[np.int64]] = {}
    for key, run in runs:
        sums[key] = sums[key] + run.confusion if key in sums else run.confusion
    return {key: scores(confusion) for key, confusion in sums.items()}
