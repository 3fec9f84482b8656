"""Whether a model copies its training data: authenticity, C_T, and the training crop nearest to each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.features import FeatureSet
from wsigen.evaluation.neighbours import kth_distance, nearest

F64 = NDArray[np.float64]
Features = NDArray[np.floating]
Index = NDArray[np.int64]

LEAST_OF_A_CELL = 20
"""Samples of each kind a cell needs for its z-score to be near normal (the paper's tau is 20 over the samples)."""

TEST_SHARE = 0.05
"""Share of held-out crops that are nearer to the training data than the distance samples are held against."""

COVERED_LEAST = 0.9
"""Share of the training tissue below which C_T and authenticity are given with a warning."""

CELLS = 10
"""k-means cells of C_T, fewer where there are not some 50 crops a cell."""


@dataclass(frozen=True, slots=True)
class DataCopying:
    """``C_T`` and what it rests on.

    Attributes
    ----------
    score : float
        Mean z-score: far below 0 (under -3) samples lie nearer to the training data than unseen real data do, about 0
        neither, far above 0 they keep away from it (underfitting). NaN where no cell held enough samples.
    cells, used : int
        Cells asked for, and those with `LEAST_OF_A_CELL` samples of either kind.
    """

    score: float
    cells: int
    used: int


def memorisation_numbers(sets: dict[str, FeatureSet], seed: int) -> tuple[dict[str, float], tuple[F64, Index], list[str]]:
    """Authenticity and, where the training data was given beside held-out data, C_T and the share of samples too near.

    Returns
    -------
    numbers, nearest, warnings:
        The numbers by name; `nearest_training` of the synthetic crops.
    """
    synthetic = sets["synthetic"].features
    training = sets["training"].features if "training" in sets else sets["real"].features
    numbers = {"authenticity": authenticity(training, synthetic)}
    warnings = []
    if "training" in sets:
        held_out = sets["real"].features
        cells = max(1, min(CELLS, len(training) // 50, len(held_out) // 50))
        copying = data_copying(training, held_out, synthetic, cells, seed)
        below, pairs = share_too_near(training, held_out, synthetic)
        numbers |= {
            "authenticity_of_held_out": authenticity(training, held_out),
            "c_t": copying.score,
            "c_t_cells": copying.cells,
            "c_t_cells_used": copying.used,
            "share_too_near": below,
            "nearer_than_held_out": pairs,
        }
        if math.isnan(copying.score):
            warnings.append("C_T has no value: no cell of the training data holds enough held-out and synthetic crops")
    else:
        warnings.append(
            "memorisation: REAL was taken for the training data; give --training (and held-out data as REAL) for C_T and the "
            "share of samples nearer to it than held-out crops are"
        )
    return numbers, nearest_training(training, synthetic), warnings


def nearest_views(training: Features, views: Features) -> NDArray[np.float32]:
    """Take every sample in the orientation in which it lies nearest to the training data.

    Models are trained on turned and mirrored crops, so most copies need not be upright. Held-out samples are to be taken in the
    same way: the smallest of several distances is smaller, whatever the sample.

    Parameters
    ----------
    views : ndarray
        ``(turns, n, d)``, features of the samples in each orientation.

    Returns
    -------
    float32 ``(n, d)``
    """
    distances = np.stack([nearest_training(training, view)[0] for view in views])
    return np.asarray(views[distances.argmin(axis=0), np.arange(distances.shape[1])], np.float32)


def nearest_training(training: Features, samples: Features) -> tuple[F64, Index]:
    """Distance of every sample to its nearest training crop, and which one that is."""
    x, y = _matrix(training), _matrix(samples)
    return nearest(y, x)


def authenticity(training: Features, samples: Features) -> float:
    """Share of samples that are authentic (Alaa et al. 2022, "How faithful is your synthetic data?").

    A sample is authentic if it is farther from its nearest training point than that point is from its nearest other
    training point. Exact copies give 0. Fresh samples of the same distribution do *not* give 1: compare with the value
    that held-out real crops have.
    """
    x = _matrix(training)
    if len(x) < 2:
        raise EvaluationError(f"{len(x)} training crops: authenticity needs two at least")
    distance, index = nearest(_matrix(samples), x)
    return float((distance > kth_distance(x, 1)[index]).mean())


def data_copying(training: Features, held_out: Features, samples: Features, cells: int = 10, seed: int = 0) -> DataCopying:
    """C_T (Meehan et al. 2020, "A non-parametric test to detect data-copying in generative models").

    Space is parted into k-means cells of the training data. In each, Mann-Whitney's U compares the distances to the
    nearest training point of the samples Q and of held-out real data P; the z-scores are averaged with the cells' share
    of P as weights (their eq. 2, over cells that hold enough of both)::

        C_T = sum P(cell) Z_U(L_cell(P), L_cell(Q)) / sum P(cell)
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise EvaluationError("C_T needs scikit-learn: pip install 'wsigen[evaluate]'") from None
    x, p, q = _matrix(training), _matrix(held_out), _matrix(samples)
    if cells > len(x):
        raise EvaluationError(f"{len(x)} training crops cannot be parted into {cells} cells; give more crops or fewer cells")
    clusters = KMeans(cells, n_init=3, random_state=seed).fit(x)
    cell_p, cell_q = clusters.predict(p), clusters.predict(q)
    near_p, near_q = nearest(p, x)[0], nearest(q, x)[0]
    total, weights, used = 0.0, 0, 0
    for cell in range(cells):
        of_p, of_q = near_p[cell_p == cell], near_q[cell_q == cell]
        if min(len(of_p), len(of_q)) >= LEAST_OF_A_CELL:
            total, weights, used = total + len(of_p) * _z_score(of_p, of_q), weights + len(of_p), used + 1
    return DataCopying(total / weights if weights else float("nan"), cells, used)


def share_too_near(training: Features, held_out: Features, samples: Features) -> tuple[float, float]:
    """How many samples are nearer to the training data than held-out real crops are.

    Returns
    -------
    below, pairs:
        Share of samples nearer than all but the nearest `TEST_SHARE` of held-out crops (`TEST_SHARE` is what fresh real
        crops would give), and the probability that a sample is nearer than a held-out crop (0.5 for fresh ones).
    """
    x = _matrix(training)
    real, drawn = nearest(_matrix(held_out), x)[0], nearest(_matrix(samples), x)[0]
    below = float((drawn < np.quantile(real, TEST_SHARE)).mean())
    return below, 1.0 - _u(real, drawn) / (len(real) * len(drawn))


def duplicates(training: Features, held_out: Features) -> float:
    """The data's own near duplicates, in the measure of `share_too_near`.

    Share of training crops whose nearest other training crop is nearer than all but the nearest `TEST_SHARE` of held-out crops
    are to the training data. Crops that overlap are each other's duplicates: give some that do not. Far above `TEST_SHARE`
    training data repeat themselves more than unseen data repeat them, as sections of one patient among themselves may.
    """
    x = _matrix(training)
    if len(x) < 2:
        raise EvaluationError(f"{len(x)} training crops: duplicates among them need two at least")
    return float((kth_distance(x, 1) < np.quantile(nearest(_matrix(held_out), x)[0], TEST_SHARE)).mean())


def _z_score(reference: F64, distances: F64) -> float:
    """Z of Mann-Whitney's U: below 0 where ``distances`` tend to be smaller than ``reference``."""
    n, m = len(reference), len(distances)
    return (_u(reference, distances) - n * m / 2) / float(np.sqrt(n * m * (n + m + 1) / 12))


def _u(reference: F64, distances: F64) -> float:
    """Count the pairs in which the distance is larger than the reference; ties count half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(distances, reference, method="asymptotic").statistic)


def _matrix(features: Features) -> F64:
    return np.asarray(features, dtype=np.float64)
