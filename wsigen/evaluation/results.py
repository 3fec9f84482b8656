"""What an evaluation is asked and what it finds: its settings, every number with its counts and warnings, the nearest crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.features import FeatureSet
from wsigen.evaluation.seams import check_period
from wsigen.evaluation.sides.places import overlapping
from wsigen.evaluation.sides.sides import Side
from wsigen.evaluation.slide_checks import SlideCheck

Watch = Callable[[str, int, int], None]
"""Called with what is counted, how many are done and how many there are."""


def counted(what: str, watch: Watch | None) -> Callable[[int, int], None] | None:
    """Tell the watch of so many things done, and so many in all."""
    return None if watch is None else lambda done, total: watch(what, done, total)


TRAINING_CROPS = 10_000
"""Crops of the training data, unless it is said."""

LEAST = 50
"""Crops a side below which no number is given."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, and how: the parameters of `wsigen.evaluate`, which describes them.

    Raises
    ------
    EvaluationError
        For what cannot be done whatever the sides are, with the option to change.
    """

    real: Path
    synthetic: Path
    training: Path | None = None
    crops: int = 2000
    size_px: int = 256
    mpp: float | None = None
    real_mpp: float | None = None
    synthetic_mpp: float | None = None
    training_mpp: float | None = None
    seed: int = 0
    cache: Path | None = None
    seam_period: int | None = None
    training_crops: int = TRAINING_CROPS

    def __post_init__(self) -> None:
        if self.size_px < 32:
            raise EvaluationError(f"crops of {self.size_px} px are too small for any extractor; --size is 32 px at least")
        if self.crops < LEAST:
            raise EvaluationError(f"{self.crops} crops are too few for any number; --crops is {LEAST} at least")
        if self.seam_period is not None:
            check_period(self.seam_period)
        if self.training_crops < LEAST:
            raise EvaluationError(f"--training-crops {self.training_crops}: {LEAST} at least, some thousands to see copies")


@dataclass(frozen=True, slots=True)
class Place:
    """A crop on its file: its upper left corner and its sides in px of level 0."""

    file: str
    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{Path(self.file).name} @ {self.x},{self.y}"


@dataclass(frozen=True, slots=True)
class Hits:
    """A training slide: of how many synthetic crops it holds the nearest training crop, and how many crops were taken of it."""

    file: str
    hits: int
    crops: int


@dataclass
class Evaluation:
    """Everything an evaluation found.

    Attributes
    ----------
    extractor : dict
        Name, version and SHA-256 of what made the features.
    mpp : float or None
        um/px of the crops, None where no image says any.
    sides, sets : dict
        Images and features of ``real``, ``synthetic`` and perhaps ``training``.
    numbers : dict
        Of all crops, by name.
    by_class : dict
        The fidelity numbers of each class, and its counts.
    nearest : tuple of arrays
        Distance of each synthetic crop to its nearest training crop, and which one that is.
    slides : list of SlideCheck
        Seams, levels and classes of each synthetic slide.
    warnings : list of str
        What the reader must know.
    """

    settings: Settings
    extractor: dict[str, str]
    mpp: float | None
    sides: dict[str, Side]
    sets: dict[str, FeatureSet]
    numbers: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)
    nearest: tuple[NDArray[np.float64], NDArray[np.int64]] = field(default_factory=lambda: (np.zeros(0), np.zeros(0, np.int64)))
    slides: list[SlideCheck] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Images read, images skipped and crops of each side."""
        return {
            name: {"images": len(side.members), "skipped": len(side.skipped), "crops": len(self.sets[name].features)}
            for name, side in self.sides.items()
        }

    @property
    def overlaps(self) -> dict[str, float]:
        """Share of the crops of each side that overlap another one."""
        return {name: overlapping(part.crops) for name, part in self.sets.items()}

    @property
    def training_side(self) -> str:
        """Name of the side that memorisation is measured against."""
        return "training" if "training" in self.sides else "real"

    def place_of(self, side: str, index: int) -> Place:
        """Where a crop lies at full resolution."""
        crop = self.sets[side].crops[index]
        box = self.sides[side].full_size(crop)
        return Place(str(self.sides[side].members[crop.member].path), box.x0, box.y0, box.width, box.height)

    def hits_by_slide(self) -> list[Hits]:
        """Every training slide that holds a nearest crop, those with most of them first."""
        crops, members = self.sets[self.training_side].crops, self.sides[self.training_side].members
        taken = Counter(c.member for c in crops)
        hits = Counter(crops[int(i)].member for i in self.nearest[1])
        return [Hits(str(members[m].path), n, taken[m]) for m, n in sorted(hits.items(), key=lambda item: (-item[1], item[0]))]
