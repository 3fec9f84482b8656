"""An evaluation: real and synthetic sides (and training data) in, every number with its counts and warnings out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.features import FeatureSet, extract, extract_turned
from wsigen.evaluation.fidelity import FID_LEAST, class_numbers, fidelity_numbers, inception_score
from wsigen.evaluation.memorisation import COVERED_LEAST, memorisation_numbers, nearest_views
from wsigen.evaluation.seams import check_period
from wsigen.evaluation.sides.marks import marked
from wsigen.evaluation.sides.members import folders_without_class
from wsigen.evaluation.sides.places import coverage, overlapping, place_crops, place_training
from wsigen.evaluation.sides.sides import (
    Crop,
    Side,
    common_mpp,
    enlarged,
    image_notes,
    open_side,
    same_files,
    unused_names,
    without_tissue,
)
from wsigen.evaluation.slide_checks import SlideCheck, check_slides
from wsigen.layout.class_names import WrittenClasses
from wsigen.models.extractors.extractors import Extractor, identity

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
    turned: bool = False
    layout_names: dict[str, str | None] = field(default_factory=dict)

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
    near : dict
        Features of the sides that memorisation is told of: those of ``sets``, of turned crops in the orientation nearest to the
        training data.
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
    near: dict[str, FeatureSet] = field(default_factory=dict)
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


def evaluate(settings: Settings, extractor: Extractor, watch: Watch | None = None) -> Evaluation:
    """Compare synthetic slides or tiles with real ones.

    Raises
    ------
    WsigenError
        If a side cannot be used: nothing readable, no tissue, too few crops, different um/px without saying so.
    """
    names = WrittenClasses(settings.layout_names)
    sides = _open(settings, names, watch)
    mpp = common_mpp(list(sides.values()), settings.mpp)
    notes = marked(sides.values()) + image_notes(sides.values()) + enlarged(list(sides.values()), mpp)
    notes += [f"{side.name}: {text}" for side in sides.values() for text in folders_without_class(side.path, side.members)]
    placed = {name: _place(settings, side, mpp) for name, side in sides.items()}  # all of them, before any network runs
    notes += without_tissue(sides.values())
    sets = {
        name: extract(side, placed[name], extractor, settings.cache, counted(f"{name}, crops", watch))
        for name, side in sides.items()
    }
    result = Evaluation(settings, identity(extractor), mpp, sides, sets)
    result.warnings += [str(s) for side in sides.values() for s in side.skipped] + notes
    _count_warnings(result)
    result.numbers |= fidelity_numbers(sets["real"].features, sets["synthetic"].features, settings.seed)
    _inception_score(result, extractor)
    result.by_class, warnings = class_numbers(sets["real"], sets["synthetic"], settings.seed)
    result.warnings += warnings
    result.near = _turned(result, extractor, watch) if settings.turned else sets
    numbers, result.nearest, warnings = memorisation_numbers(result.near, settings.seed)
    result.numbers |= numbers
    result.warnings += _coverage(result) + warnings + same_files(sides)
    result.slides, warnings = check_slides(sides["synthetic"], settings.seam_period)
    result.warnings += warnings + [reason for side in sides.values() for reason in side.unlabelled.values()]
    result.warnings += unused_names(names)
    result.warnings[:] = dict.fromkeys(result.warnings)  # one file may be on two sides
    return result


def _open(settings: Settings, names: WrittenClasses, watch: Watch | None) -> dict[str, Side]:
    given = [("real", settings.real, settings.real_mpp), ("synthetic", settings.synthetic, settings.synthetic_mpp)]
    if settings.training is not None:
        given.append(("training", settings.training, settings.training_mpp))
    return {
        name: open_side(name, path, mpp, counted(f"{name}, images indexed", watch), names, exact=settings.mpp is not None)
        for name, path, mpp in given
    }


def _place(settings: Settings, side: Side, mpp: float | None) -> list[Crop]:
    if side.name == "training":
        crops = place_training(side, settings.training_crops, LEAST, settings.size_px, mpp, settings.seed)
    else:
        crops = place_crops(side, settings.crops, settings.size_px, mpp, settings.seed)
    if len(crops) < LEAST:
        raise EvaluationError(
            f"{side.path}: only {len(crops)} crops of {settings.size_px} px show tissue, {LEAST} are needed; "
            "give more images or a smaller --size"
        )
    return crops


def _turned(result: Evaluation, extractor: Extractor, watch: Watch | None) -> dict[str, FeatureSet]:
    """The features of all sides; samples and held-out crops in the orientation nearest to the training data."""
    near, training = dict(result.sets), result.training_side
    for name in sorted({"synthetic", "real"} - {training}):
        upright, tick = result.sets[name], counted(f"{name}, turned crops", watch)
        views = extract_turned(result.sides[name], upright, extractor, result.settings.cache, tick)
        near[name] = replace(upright, features=nearest_views(result.sets[training].features, views))
    return near


def _count_warnings(result: Evaluation) -> None:
    if result.mpp is None:
        result.warnings.append("no image says its um/px; pixels were compared as they are")
    compared = {name: result.sets[name] for name in ("real", "synthetic")}
    for name, part in compared.items():
        n = len(part.features)
        if n < result.settings.crops:
            result.warnings.append(f"{name}: {n} crops instead of {result.settings.crops}; its images have no more")
        if n < FID_LEAST:
            result.warnings.append(f"FID means little: {n} {name} crops; at least {FID_LEAST:,} are needed. KID is unbiased")
        covered, area = n * result.settings.size_px**2, _tissue_px(result.sides[name], result.mpp)
        if covered > area:
            result.warnings.append(f"{name}: crops overlap ({covered / area:.2f} times its tissue), they are not independent")
    counts = [len(part.features) for part in compared.values()]
    if counts[0] != counts[1]:
        result.warnings.append(
            f"precision, recall, density and coverage are those of {min(counts)} crops a side, drawn from {counts[0]} real and "
            f"{counts[1]} synthetic ones: they grow with the number of crops"
        )
    n, d = min(counts), result.sets["real"].features.shape[1]
    if n <= d:
        result.warnings.append(f"FID means little: {n} crops in {d} dimensions give a singular covariance")


def _coverage(result: Evaluation) -> list[str]:
    """How much of the training tissue its crops reach: a number of its own, and a warning where that is little."""
    name = result.training_side
    crops = result.sets[name].crops
    covered = coverage(result.sides[name], crops, result.settings.size_px, result.mpp)
    result.numbers["training_coverage"] = covered
    if covered >= COVERED_LEAST:
        return []
    more = "--training-crops" if name == "training" else "--crops, or give the training data as --training"
    return [
        f"{name} crops cover {covered:.0%} of the {name} tissue; copies of the rest cannot be seen: C_T and authenticity "
        f"tell of no more than that share; {len(crops)} crops were taken, raise {more}"
    ]


def _tissue_px(side: Side, mpp: float | None) -> float:
    """Tissue of a side in px at ``mpp``, of images that are large enough."""
    total = 0.0
    for index, member in enumerate(side.members):
        if str(member.path) not in side.skipped_paths:
            height, width = side.canvas(index, mpp)
            mask = side.tissue(index)
            total += height * width * mask.count / (mask.shape[0] * mask.shape[1])
    return max(total, 1.0)


def _inception_score(result: Evaluation, extractor: Extractor) -> None:
    """That of the synthetic crops, and that of the real ones, without which it says nothing."""
    for side, key in (("synthetic", "inception_score"), ("real", "inception_score_of_real")):
        features = result.sets[side].features
        p = extractor.probabilities(features[np.random.default_rng(result.settings.seed).permutation(len(features))])
        if p is not None:
            result.numbers[key], result.numbers[f"{key}_deviation"] = inception_score(p)
