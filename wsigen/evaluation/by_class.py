"""The numbers of each class that both sides have, by the rules of all crops."""

from __future__ import annotations

from collections import Counter

import numpy as np

from wsigen.evaluation.features import FeatureSet
from wsigen.evaluation.fidelity import FID_LEAST, fidelity_numbers

LEAST_OF_A_CLASS = 50
"""Crops of a class on both sides below which it has no numbers of its own."""


def class_numbers(real: FeatureSet, synthetic: FeatureSet, seed: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Compare the crops of every class on their own.

    Returns
    -------
    by_class, warnings:
        By name, case aside: ``real_crops`` and ``synthetic_crops``, and `fidelity.fidelity_numbers` where there are enough.
    """
    sets = {"real": real, "synthetic": synthetic}
    folded = {n: np.array([(c or "").casefold() for c in s.classes]) for n, s in sets.items()}
    names = {c.casefold(): c for s in sets.values() for c in s.classes if c}
    counts = {n: Counter(folded[n].tolist()) for n in folded}
    found, warnings = {}, []
    for key, name in sorted(names.items()):
        n, m = counts["real"][key], counts["synthetic"][key]
        row: dict[str, float] = {"real_crops": n, "synthetic_crops": m}
        if min(n, m) >= LEAST_OF_A_CLASS:
            part = {s: sets[s].features[folded[s] == key] for s in sets}
            row |= fidelity_numbers(part["real"], part["synthetic"], seed)
            warnings += _few(name, n, m, part["real"].shape[1])
        elif n and m:
            warnings.append(f"class {name}: {n} real and {m} synthetic crops, {LEAST_OF_A_CLASS} of each are needed")
        found[name] = row
    return found, warnings


def _few(name: str, real: int, synthetic: int, dimension: int) -> list[str]:
    """Say where FID means little, as for all crops."""
    counted = f"class {name}: FID means little: {real} real and {synthetic} synthetic crops"
    if min(real, synthetic) <= dimension:
        return [f"{counted} in {dimension} dimensions give a singular covariance; see KID"]
    enough = min(real, synthetic) >= FID_LEAST
    return [] if enough else [f"{counted}; at least {FID_LEAST:,} of each are needed. KID is unbiased"]
