"""What a downstream evaluation is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsigen.base.errors import EvaluationError

Task = Literal["classification", "segmentation"]
Arm = Literal["real", "synthetic", "both"]
ARMS: tuple[Arm, ...] = ("real", "synthetic", "both")
"""What a network is trained on; tests are always real."""

LEAST_OF_A_CLASS = 20
"""Crops of a class on both sides below which it is left out."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A downstream evaluation.

    Attributes
    ----------
    real, synthetic, tests:
        Sides (`sides.open_side`); ``tests`` are further real ones that nothing is trained on (DiffInfinite's zero-shot).
    task:
        Name the class of a crop, or of each of its pixels.
    network:
        ``small`` or ``timm:NAME`` (`networks.open_network`).
    folds:
        Parts of the real groups, each tested once (PathUp: 5); 0: all of REAL is trained on, and only ``tests`` test.
    ratio:
        Synthetic crops per real training crop (PathUp: 1).
    seeds:
        Repetitions with other weights, batches and augmentations.
    epochs:
        Passes over as many crops as a fold has for training; every arm takes the same number of steps.
    crops:
        Labelled crops of a side at most.
    size_px, mpp:
        Side of a crop in px at ``mpp`` um/px (None: that of the sides).
    real_mpp, synthetic_mpp, test_mpp:
        um/px of files that do not say it.
    groups:
        Regular expression whose first group finds the patient or slide in an image's path below REAL.
    batch:
        Crops of a step.
    seed:
        Of crops and folds; the repetitions count on from it.
    scratch:
        Folder of the scratch file that holds the pixels of all crops; None: the system's.
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

    def check(self) -> None:
        """Refuse what cannot be done whatever the sides are.

        Raises
        ------
        EvaluationError
            With the option to change.
        """
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
