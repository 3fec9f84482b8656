"""How the numbers of an evaluation are called and read, in tables and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsigen.evaluation.coverage import COVERED_LEAST
from wsigen.evaluation.evaluate import Evaluation
from wsigen.evaluation.fidelity import DENSITY_K, PRECISION_K
from wsigen.evaluation.memorisation import TEST_SHARE


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a number in words."""

    key: str
    name: str
    value: str
    reading: str


_FORMS = {
    "fid": ("FID (Crop-FID on slides)", "{:.4g}", "0 = equal moments; compares only within one extractor and count"),
    "kid": ("KID x 1000", "{:.4g}", "0 = equal; unbiased, may be below 0"),
    "precision": (f"precision (k = {PRECISION_K})", "{:.3f}", "share of synthetic crops that look real"),
    "recall": (f"recall (k = {PRECISION_K})", "{:.3f}", "share of real crops that synthetic ones reach"),
    "density": (f"density (k = {DENSITY_K})", "{:.3f}", "1 = as dense as real; above 1: crowded where real is"),
    "coverage": (f"coverage (k = {DENSITY_K})", "{:.3f}", "share of real neighbourhoods with a synthetic crop"),
    "inception_score": ("inception score", "{:.3f}", "classes of photographs: says little of tissue"),
    "inception_score_of_real": ("inception score of real crops", "{:.3f}", "what the score above is held against"),
    "training_coverage": (
        "training tissue covered",
        "{:.1%}",
        "has a training crop near it; copies of the rest are not seen",
    ),
    "authenticity": ("authenticity", "{:.3f}", "0 = all copies; compare with that of held-out crops"),
    "authenticity_of_held_out": ("authenticity of held-out crops", "{:.3f}", "what unseen real crops have"),
    "c_t": ("C_T", "{:.2f}", "below -3: copies training data; about 0: no; above 3: keeps away from it"),
    "share_too_near": ("share nearer than held-out", "{:.3f}", f"{TEST_SHARE:.2f} = as unseen real crops; more: copies"),
    "nearer_than_held_out": ("P(nearer than a held-out crop)", "{:.3f}", "0.5 = as unseen real crops"),
}
_DEVIATIONS = {
    "kid": "kid_deviation",
    "inception_score": "inception_score_deviation",
    "inception_score_of_real": "inception_score_of_real_deviation",
}
_OF_COPIES = ("authenticity", "c_t", "share_too_near", "nearer_than_held_out")
_SCALES = {"kid": 1000.0}


CLASS_HEAD = ("class", "real crops", "synthetic crops", "FID", "KID x 1000", "precision", "recall", "density", "coverage")
"""Columns of the table by class."""


def rows(found: Evaluation) -> list[Row]:
    """The numbers of all crops in the order a reader wants them."""
    out = []
    for key, (name, _, reading) in _FORMS.items():
        if key in found.numbers:
            if key == "c_t":
                reading = f"{reading} ({found.numbers['c_t_cells_used']:.0f} of {found.numbers['c_t_cells']:.0f} cells)"
            if key in _OF_COPIES and found.numbers["training_coverage"] < COVERED_LEAST:
                reading += f"; sees {found.numbers['training_coverage']:.0%} of the training tissue"
            out.append(Row(key, name, _value(key, found.numbers), reading))
    return out


def class_rows(found: Evaluation) -> list[tuple[str, ...]]:
    """One line a class, as `CLASS_HEAD` says; on the scales and with the deviations of the numbers of all crops."""
    keys = ("fid", "kid", "precision", "recall", "density", "coverage")
    return [
        (name, *(f"{row[f'{side}_crops']:.0f}" for side in ("real", "synthetic")), *(_value(k, row) for k in keys))
        for name, row in found.by_class.items()
    ]


def _value(key: str, numbers: Mapping[str, float]) -> str:
    """A number on its scale, with its deviation; empty where there is none."""
    if key not in numbers:
        return ""
    scale = _SCALES.get(key, 1.0)
    value = _FORMS[key][1].format(numbers[key] * scale)
    return f"{value} +- {numbers[_DEVIATIONS[key]] * scale:.3g}" if key in _DEVIATIONS else value


def extractor_line(found: Evaluation) -> str:
    """The extractor of every number."""
    e = found.extractor
    return f"features: {e['name']} ({e['version']}), sha256 {e['sha256'][:12]}"


def count_line(found: Evaluation) -> str:
    """Crops and images of every side."""
    counts, overlaps = found.counts(), found.overlaps()
    parts = [f"{n}: {c['crops']} crops of {c['images']} images ({overlaps[n]:.0%} overlap another)" for n, c in counts.items()]
    skipped = sum(c["skipped"] for c in counts.values())
    where = f"{found.settings.size_px} px at {found.mpp:g} um/px" if found.mpp else f"{found.settings.size_px} px"
    return "; ".join([*parts, where, *([f"{skipped} images skipped"] if skipped else [])])
