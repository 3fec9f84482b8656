"""The memorisation part of an evaluation: its numbers, what they were held against, and files that are the same."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsigen.evaluation import memorisation
from wsigen.evaluation.features import FeatureSet
from wsigen.evaluation.sides.sides import Side
from wsigen.storage.files import sha256

CELLS = 10
"""k-means cells of C_T, fewer where there are not some 50 crops a cell."""

Nearest = tuple[NDArray[np.float64], NDArray[np.int64]]


def memorisation_numbers(sets: dict[str, FeatureSet], seed: int) -> tuple[dict[str, float], Nearest, list[str]]:
    """Authenticity and, where the training data was given beside held-out data, C_T and the share of samples too near.

    Returns
    -------
    numbers, nearest, warnings:
        The numbers by name; `memorisation.nearest_training` of the synthetic crops.
    """
    synthetic = sets["synthetic"].features
    training = sets["training"].features if "training" in sets else sets["real"].features
    numbers = {"authenticity": memorisation.authenticity(training, synthetic)}
    warnings = []
    if "training" in sets:
        held_out = sets["real"].features
        cells = max(1, min(CELLS, len(training) // 50, len(held_out) // 50))
        found = memorisation.data_copying(training, held_out, synthetic, cells, seed)
        below, pairs = memorisation.share_too_near(training, held_out, synthetic)
        numbers |= {
            "authenticity_of_held_out": memorisation.authenticity(training, held_out),
            "c_t": found.score,
            "c_t_cells": found.cells,
            "c_t_cells_used": found.used,
            "share_too_near": below,
            "nearer_than_held_out": pairs,
        }
        if math.isnan(found.score):
            warnings.append("C_T has no value: no cell of the training data holds enough held-out and synthetic crops")
    else:
        warnings.append(
            "memorisation: REAL was taken for the training data; give --training (and held-out data as REAL) for C_T and the "
            "share of samples nearer to it than held-out crops are"
        )
    return numbers, memorisation.nearest_training(training, synthetic), warnings


def same_files(sides: dict[str, Side]) -> list[str]:
    """Say which files two sides share by content: comparing them says nothing."""
    found, names = [], list(sides)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            count = shared_files(sides[a], sides[b])
            if count:
                total = len(sides[b].members)
                found.append(f"{a} and {b} are the same in {count} of {total} files: numbers compare them with themselves")
    return found


def shared_files(a: Side, b: Side) -> int:
    """Count files of ``b`` whose bytes are a file of ``a``; only files of equal size are read."""
    sizes = {m.path.stat().st_size for m in a.members} & {m.path.stat().st_size for m in b.members}
    known = {sha256(m.path) for m in a.members if m.path.stat().st_size in sizes}
    return sum(m.path.stat().st_size in sizes and sha256(m.path) in known for m in b.members)
