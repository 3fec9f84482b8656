"""An evaluation: two sides (and training data) in, every number with its counts and warnings out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.evaluation import fidelity
from wsigen.evaluation.by_class import class_numbers
from wsigen.evaluation.copies import memorisation_numbers, same_files
from wsigen.evaluation.coverage import coverage, coverage_warning, overlapping, place_training
from wsigen.evaluation.extractors.extractors import Extractor, identity
from wsigen.evaluation.features import FeatureSet, extract
from wsigen.evaluation.fidelity import FID_LEAST, fidelity_numbers
from wsigen.evaluation.seams import check_period
from wsigen.evaluation.selfchecks import SlideCheck, check_slides
from wsigen.evaluation.sides.members import folders_without_class
from wsigen.evaluation.sides.sides import Crop, Side, common_mpp, enlarged, open_side, place_crops

TRAINING_CROPS = 10_000
"""Crops of the training data, unless it is said."""

LEAST = 50
"""Crops a side below which no number is given."""

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, and how.

    Attributes
    ----------
    real, synthetic:
        Slides, folders or datasets (`sides.open_side`).
    training:
        What the model was trained on; then ``real`` is held out. None: ``real`` is taken for the training data.
    crops:
        Of real and synthetic.
    training_crops:
        Of the training data at most: they lie on a lattice (`coverage.place_training`).
    size_px, mpp:
        Side of a crop in px at ``mpp`` um/px (None: that of the sides).
    real_mpp, synthetic_mpp, training_mpp:
        um/px of files that do not say it.
    cache:
        Folder of feature files, or None.
    seam_period:
        Also measure borders every so many px of synthetic images.
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


@dataclass
class Evaluation:
    """Everything an evaluation found.

    Attributes
    ----------
    sides, sets:
        By name: ``real``, ``synthetic`` and perhaps ``training``.
    numbers:
        Of all crops, by name.
    by_class:
        The fidelity numbers of each class, and its counts.
    nearest:
        Index of the training crop nearest to each synthetic one, and their distances.
    warnings:
        What the reader must know.
    """

    settings: Settings
    extractor: dict[str, str]
    mpp: float | None
    sides: dict[str, Side]
    sets: dict[str, FeatureSet]
    numbers: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)
    nearest: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None
    slides: list[SlideCheck] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images read, images skipped and crops of each side."""
        return {
            name: {"images": len(side.members), "skipped": len(side.skipped), "crops": len(self.sets[name].features)}
            for name, side in self.sides.items()
        }

    def overlaps(self) -> dict[str, float]:
        """Share of the crops of each side that overlap another one."""
        return {name: overlapping(part.crops) for name, part in self.sets.items()}


def evaluate(settings: Settings, extractor: Extractor, watch: Watch | None = None) -> Evaluation:
    """Compare synthetic slides or tiles with real ones.

    Parameters
    ----------
    watch:
        Called with the side's name and what is counted, how many are done and how many there are.

    Raises
    ------
    WsigenError
        If a side cannot be used: nothing readable, no tissue, too few crops, different um/px without saying so.
    """
    sides = _open(settings, watch)
    mpp = common_mpp(list(sides.values()), settings.mpp)
    notes = enlarged(list(sides.values()), mpp)
    notes += [f"{side.name}: {text}" for side in sides.values() for text in folders_without_class(side.path, side.members)]
    placed = {name: _place(settings, side, mpp) for name, side in sides.items()}  # all of them, before any network runs
    sets = {name: _features(settings, side, placed[name], extractor, watch) for name, side in sides.items()}
    found = Evaluation(settings, identity(extractor), mpp, sides, sets)
    found.warnings += [str(s) for side in sides.values() for s in side.skipped] + notes
    _count_warnings(found)
    real, synthetic = sets["real"].features, sets["synthetic"].features
    found.numbers |= fidelity_numbers(real, synthetic, settings.seed)
    _inception_score(found, extractor)
    found.by_class, warnings = class_numbers(sets["real"], sets["synthetic"], settings.seed)
    found.warnings += warnings
    numbers, found.nearest, warnings = memorisation_numbers(sets, settings.seed)
    found.numbers |= numbers
    found.warnings += _coverage(found) + warnings + same_files(sides)
    found.slides, warnings = check_slides(sides["synthetic"], settings.seam_period)
    found.warnings += warnings + [reason for side in sides.values() for reason in side.unlabelled.values()]
    found.warnings[:] = dict.fromkeys(found.warnings)  # one file may be on two sides
    return found


def _open(settings: Settings, watch: Watch | None) -> dict[str, Side]:
    if settings.size_px < 32:
        raise EvaluationError(f"crops of {settings.size_px} px are too small for any extractor; --size is 32 px at least")
    if settings.crops < LEAST:
        raise EvaluationError(f"{settings.crops} crops are too few for any number; --crops is {LEAST} at least")
    given = [("real", settings.real, settings.real_mpp), ("synthetic", settings.synthetic, settings.synthetic_mpp)]
    if settings.seam_period is not None:
        check_period(settings.seam_period)
    if settings.training_crops < LEAST:
        raise EvaluationError(f"--training-crops {settings.training_crops}: {LEAST} at least, some thousands to see copies")
    if settings.training is not None:
        given.append(("training", settings.training, settings.training_mpp))
    return {name: open_side(name, path, mpp, indexing(name, watch)) for name, path, mpp in given}


def indexing(name: str, watch: Watch | None) -> Callable[[int, int], None] | None:
    """Tell the watch of images gone through for the index of a dataset."""
    return None if watch is None else lambda done, total: watch(f"{name}, images indexed", done, total)


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


def _features(settings: Settings, side: Side, crops: list[Crop], extractor: Extractor, watch: Watch | None) -> FeatureSet:
    return extract(
        side, crops, extractor, settings.cache, lambda n: watch(f"{side.name}, crops", n, len(crops)) if watch else None
    )


def _count_warnings(found: Evaluation) -> None:
    if found.mpp is None:
        found.warnings.append("no image says its um/px; pixels were compared as they are")
    compared = {name: found.sets[name] for name in ("real", "synthetic")}
    for name, part in compared.items():
        n = len(part.features)
        if n < found.settings.crops:
            found.warnings.append(f"{name}: {n} crops instead of {found.settings.crops}; its images have no more")
        if n < FID_LEAST:
            found.warnings.append(f"FID means little: {n} {name} crops; at least {FID_LEAST:,} are needed. KID is unbiased")
        covered, area = n * found.settings.size_px**2, _tissue_px(found.sides[name], found.mpp)
        if covered > area:
            found.warnings.append(f"{name}: crops overlap ({covered / area:.2f} times its tissue), they are not independent")
    n, d = min(len(s.features) for s in compared.values()), found.sets["real"].features.shape[1]
    if n <= d:
        found.warnings.append(f"FID means little: {n} crops in {d} dimensions give a singular covariance")


def _coverage(found: Evaluation) -> list[str]:
    """How much of the training tissue its crops reach: a number of its own, and a warning where that is little."""
    name = "training" if "training" in found.sides else "real"
    crops = found.sets[name].crops
    covered = coverage(found.sides[name], crops, found.settings.size_px, found.mpp)
    found.numbers["training_coverage"] = covered
    return coverage_warning(name, covered, len(crops))


def _tissue_px(side: Side, mpp: float | None) -> float:
    """Tissue of a side in px at ``mpp``, of images that are large enough."""
    total = 0.0
    for member in side.members:
        if str(member.path) not in side.skipped_paths:
            height, width = member.canvas(mpp)
            mask = member.tissue
            total += height * width * mask.count / (mask.shape[0] * mask.shape[1])
    return max(total, 1.0)


def _inception_score(found: Evaluation, extractor: Extractor) -> None:
    """That of the synthetic crops, and that of the real ones, without which it says nothing."""
    for side, key in (("synthetic", "inception_score"), ("real", "inception_score_of_real")):
        features = found.sets[side].features
        p = extractor.probabilities(features[np.random.default_rng(found.settings.seed).permutation(len(features))])
        if p is not None:
            found.numbers[key], found.numbers[f"{key}_deviation"] = fidelity.inception_score(p)
