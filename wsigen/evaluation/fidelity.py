"""How near synthetic features are to real ones: FID, KID, precision, recall, density, coverage, inception score; by class."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.features import FeatureSet
from wsigen.evaluation.neighbours import balls_around, kth_distance, nearest, tiles

F64 = NDArray[np.float64]
Features = NDArray[np.floating]

PRECISION_K = 3
"""Neighbours of improved precision and recall (Kynkaanniemi et al. 2019 use 3)."""

DENSITY_K = 5
"""Neighbours of density and coverage (Naeem et al. 2020 use 5)."""

FID_LEAST = 2000
"""Samples below which FID is mostly bias; 50,000 are usual."""

KID_SUBSETS, KID_SUBSET = 100, 1000
"""Subsets, and samples of each, over which KID is averaged (Binkowski et al. 2018)."""

LEAST_OF_A_CLASS = 50
"""Crops of a class on both sides below which it has no numbers of its own."""


def fidelity_numbers(real: NDArray[np.float32], synthetic: NDArray[np.float32], seed: int) -> dict[str, float]:
    """FID, KID, precision, recall, density, coverage by the names a report prints.

    The last four grow with the number of samples of a side, so they are given of equally many (`equal_numbers`).
    """
    kid, deviation = kernel_distance(real, synthetic, seed)
    pair = equal_numbers(real, synthetic, seed)
    precision, recall = precision_recall(*pair)
    density, coverage = density_coverage(*pair)
    return {
        "fid": frechet_distance(real, synthetic),
        "kid": kid,
        "kid_deviation": deviation,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }


def equal_numbers(
    real: NDArray[np.float32], synthetic: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw as many samples of the larger side as the smaller one has, without repetition; equal sides stay as they are.

    A perfect generator has a coverage of 0.96 with 1,500 samples against 1,500 real ones, and of 0.15 with 60.
    """
    rng, count = np.random.default_rng([seed, 5]), min(len(real), len(synthetic))

    def drawn(side: NDArray[np.float32]) -> NDArray[np.float32]:
        return side if len(side) == count else side[np.sort(rng.choice(len(side), count, replace=False))]

    return drawn(real), drawn(synthetic)


def class_numbers(real: FeatureSet, synthetic: FeatureSet, seed: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Compare the crops of every class on their own.

    Returns
    -------
    by_class, warnings:
        By name, case aside: ``real_crops`` and ``synthetic_crops``, and `fidelity_numbers` where there are enough.
    """
    sets = {"real": real, "synthetic": synthetic}
    folded = {n: np.array([(c or "").casefold() for c in s.classes]) for n, s in sets.items()}
    names = {c.casefold(): c for s in sets.values() for c in s.classes if c}
    counts = {n: Counter(folded[n].tolist()) for n in folded}
    by_class, warnings = {}, []
    for key, name in sorted(names.items()):
        n, m = counts["real"][key], counts["synthetic"][key]
        row: dict[str, float] = {"real_crops": n, "synthetic_crops": m}
        if min(n, m) >= LEAST_OF_A_CLASS:
            part = {s: sets[s].features[folded[s] == key] for s in sets}
            row |= fidelity_numbers(part["real"], part["synthetic"], seed)
            warnings += _few(name, n, m, part["real"].shape[1])
        elif n and m:
            warnings.append(f"class {name}: {n} real and {m} synthetic crops, {LEAST_OF_A_CLASS} of each are needed")
        by_class[name] = row
    return by_class, warnings


def _few(name: str, real: int, synthetic: int, dimension: int) -> list[str]:
    """Say where FID means little, as for all crops."""
    counted = f"class {name}: FID means little: {real} real and {synthetic} synthetic crops"
    if min(real, synthetic) <= dimension:
        return [f"{counted} in {dimension} dimensions give a singular covariance; see KID"]
    enough = min(real, synthetic) >= FID_LEAST
    return [] if enough else [f"{counted}; at least {FID_LEAST:,} of each are needed. KID is unbiased"]


def frechet_distance(real: Features, synthetic: Features) -> float:
    """FID (Heusel et al. 2017): the Frechet distance between normal distributions of equal mean and covariance.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. The eigenvalues of ``S1 S2`` are those of the symmetric
    ``S1^(1/2) S2 S1^(1/2)``, so that no complex square root appears; when there are fewer samples than dimensions the
    covariances are singular and that is all right.

    Parameters
    ----------
    real, synthetic : ndarray
        ``(n, d)`` and ``(m, d)``, at least two samples each; computed in float64.

    Returns
    -------
    float, 0 for equal moments.

    Raises
    ------
    EvaluationError
        If there are fewer than two samples or the dimensions differ.
    """
    x, y = _pair(real, synthetic, 2)
    mean = x.mean(0) - y.mean(0)
    s1, s2 = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root @ s2 @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    return max(0.0, float(mean @ mean + np.trace(s1) + np.trace(s2) - 2.0 * cross))


def squared_mmd(real: Features, synthetic: Features) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, kernel ``(x.y / d + 1)^3``; it may be below 0."""
    x, y = _pair(real, synthetic, 2)
    n, m = len(x), len(y)
    within = (_kernel_sum(x, x) - _kernel_trace(x)) / (n * (n - 1)) + (_kernel_sum(y, y) - _kernel_trace(y)) / (m * (m - 1))
    return float(within - 2.0 * _kernel_sum(x, y) / (n * m))


def kernel_distance(
    real: Features, synthetic: Features, seed: int = 0, subsets: int = KID_SUBSETS, size: int | None = None
) -> tuple[float, float]:
    """KID: mean and standard deviation of `squared_mmd` over random subsets (drawn without repetition).

    A subset holds ``KID_SUBSET`` samples, or half of the smaller side where that is less: as large as a side, all subsets
    would be the same and their deviation 0.
    """
    x, y = _pair(real, synthetic, 2)
    half = max(2, min(len(x), len(y)) // 2)
    size = min(size or min(KID_SUBSET, half), len(x), len(y))
    rng = np.random.default_rng(seed)
    values = [
        squared_mmd(x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def precision_recall(real: Features, synthetic: Features, k: int = PRECISION_K) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019), each in [0, 1].

    Precision is the share of synthetic samples inside any ball around a real one whose radius is the distance to that
    one's ``k``-th nearest real neighbour; recall is the same with the sides exchanged.
    """
    x, y = _pair(real, synthetic, k + 1)
    precision = (balls_around(y, x, kth_distance(x, k)) > 0).mean()
    recall = (balls_around(x, y, kth_distance(y, k)) > 0).mean()
    return float(precision), float(recall)


def density_coverage(real: Features, synthetic: Features, k: int = DENSITY_K) -> tuple[float, float]:
    """Density (>= 0, may exceed 1) and coverage in [0, 1] (Naeem et al. 2020, eq. 3 and 4).

    Density is the mean number of real balls that hold a synthetic sample, over ``k``; coverage is the share of real
    balls that hold any synthetic sample.
    """
    x, y = _pair(real, synthetic, k + 1)
    radii = kth_distance(x, k)
    density = balls_around(y, x, radii).sum() / (k * len(y))
    return float(density), float((nearest(x, y)[0] <= radii).mean())


def inception_score(probabilities: Features, splits: int = 10) -> tuple[float, float]:
    """Inception score (Salimans et al. 2016): mean and deviation over ``splits`` of ``exp(E KL(p(y|x) || p(y)))``.

    Parameters
    ----------
    probabilities : ndarray
        ``(n, classes)``, rows adding up to 1; samples in random order.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    parts = np.array_split(p, min(splits, len(p)))
    scores = [np.exp(rel_entr(part, part.mean(axis=0, keepdims=True)).sum(axis=1).mean()) for part in parts]
    return float(np.mean(scores)), float(np.std(scores))


def _kernel_sum(x: F64, y: F64) -> float:
    return float(sum(((x[r] @ y[c].T / x.shape[1] + 1.0) ** 3).sum() for r in tiles(len(x)) for c in tiles(len(y))))


def _kernel_trace(x: F64) -> float:
    return float((((x * x).sum(1) / x.shape[1] + 1.0) ** 3).sum())


def _pair(real: Features, synthetic: Features, least: int) -> tuple[F64, F64]:
    x, y = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise EvaluationError(f"features of shapes {x.shape} and {y.shape} cannot be compared; use one extractor for both")
    if min(len(x), len(y)) < least:
        raise EvaluationError(f"{len(x)} real and {len(y)} synthetic crops are too few; at least {least} a side are needed")
    return x, y
