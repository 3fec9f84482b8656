"""What a downstream evaluation found: every run's confusion matrix, and their means and deviations over seeds, folds pooled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wsigen.evaluation.downstream.scores import Scores, Spread, scores, spread
from wsigen.evaluation.downstream.settings import Arm, Settings
from wsigen.evaluation.sides.sides import Side

FOLDS = "REAL, folds of other patients"
"""Name of the test on REAL itself."""


@dataclass(frozen=True, eq=False)
class Run:
    """One trained network on one test set.

    Attributes
    ----------
    fold:
        Which part of REAL it was not trained on, or None: it saw none of REAL (the synthetic arm), or all of it.
    tested:
        The fold of REAL it was tested on, or None (``test`` names another side).
    confusion:
        int64 ``[classes, classes]`` (true, predicted) of crops or labelled pixels.
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
    sides, counts:
        By name: ``real``, ``synthetic``, and the tests by their paths; crops of each class.
    steps:
        Optimiser steps of every network, whatever its arm.
    used:
        Real and synthetic crops a network is trained on (the mean over folds of the former).
    examples:
        By side and class: uint8 ``[P, P, 3]`` of some crops.
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
