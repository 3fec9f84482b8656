"""The report of an evaluation: its numbers in words, for tables, ``report.json`` and ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import WsigenError
from wsigen.evaluation.borders import REACH_PX, SeamScore
from wsigen.evaluation.evaluate import Evaluation
from wsigen.evaluation.fidelity import DENSITY_K, PRECISION_K
from wsigen.evaluation.memorisation import COVERED_LEAST, TEST_SHARE, nearest_training
from wsigen.evaluation.report.page import plain, render, write
from wsigen.evaluation.slide_checks import PooledSeam, SlideCheck, pool, worst_slides

SHOWN, NEAREST, WORST = 24, 16, 3
"""What a page shows at most: crops of a side, pairs of nearest crops, slides whose seams are shown alone."""

HEADLINE = {"fid", "kid", "precision", "recall", "authenticity", "c_t"}
"""Numbers a page begins with."""

SEAM_HEAD = ("borders", "seam score", "noise", "pieces", "")

Profile = tuple[str, tuple[float, ...]]


def write_report(result: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into a folder, which is made if need be; return their paths."""
    return write(folder, "report", to_json(result), page(result))


def to_json(result: Evaluation) -> dict[str, Any]:
    """Everything as plain values; a number that does not exist is null."""
    nearest = [
        {
            "distance": float(distance),
            "crop": int(crop),
            "synthetic": asdict(result.place_of("synthetic", i)),
            "training": asdict(result.place_of(result.training_side, int(crop))),
        }
        for i, (distance, crop) in enumerate(zip(*result.nearest, strict=True))
    ]
    return plain(
        {
            "settings": asdict(result.settings),
            "extractor": result.extractor,
            "mpp": result.mpp,
            "counts": result.counts,
            "overlaps": result.overlaps,
            "numbers": result.numbers,
            "by_class": result.by_class,
            "slides": [asdict(s) | {"visible": [x.name for x in s.seams if x.visible]} for s in result.slides],
            "seams": [_pooled(p) for p in pool(result.slides)],
            "nearest_training": nearest,
            "nearest_by_slide": [asdict(h) for h in result.hits_by_slide()],
            "skipped": [asdict(s) for side in result.sides.values() for s in side.skipped],
            "warnings": result.warnings,
        }
    )


def _pooled(pooled: PooledSeam) -> dict[str, Any]:
    path, seam = pooled.worst
    worst = {"path": path, "score": seam.score, "noise": seam.noise}
    counts = {"visible": pooled.seam.visible, "slides": pooled.slides, "visible_on": pooled.visible_on}
    return asdict(pooled.seam) | counts | {"worst": worst}


def page(result: Evaluation) -> str:
    """Return the whole page."""
    order = np.argsort(result.nearest[0], kind="stable")[:NEAREST].tolist()
    points = [("all", result.numbers["recall"], result.numbers["precision"])]
    points += [(name, row["recall"], row["precision"]) for name, row in result.by_class.items() if "precision" in row]
    return render(
        "evaluation.html",
        result=result,
        notes=[count_line(result), extractor_line(result)],
        headline=[(r.name, r.value.split(" ±")[0]) for r in rows(result) if r.key in HEADLINE],
        numbers=[(r.name, r.value, r.reading) for r in rows(result)],
        crops={side: _random_crops(result, side) for side in ("real", "synthetic")},
        pairs=[_pair(result, i) for i in order],
        hits=[(h.file, f"{h.hits:,}", f"{h.crops:,}") for h in result.hits_by_slide()],
        points=points,
        distances=_distances(result),
        class_head=CLASS_HEAD,
        class_rows=class_rows(result),
        offsets=range(-REACH_PX, REACH_PX + 1),
        seams=seam_tables(result.slides),
        consistency=[(s.path, *_consistency(s)) for s in result.slides if s.levels or s.areas],
    )


def _random_crops(result: Evaluation, side: str) -> list[NDArray[np.uint8]]:
    chosen = np.random.default_rng(result.settings.seed).permutation(len(result.sets[side].crops))[:SHOWN]
    return [crop for i in chosen for crop in _crop(result, side, int(i))]


def _crop(result: Evaluation, side: str, index: int) -> list[NDArray[np.uint8]]:
    """The pixels of a crop; nothing if it can no longer be read."""
    try:
        return [result.sides[side].read(result.sets[side].crops[index])]
    except WsigenError:
        return []


def _pair(result: Evaluation, index: int) -> dict[str, Any]:
    """A synthetic crop and the training crop nearest to it."""
    side, other = result.training_side, int(result.nearest[1][index])
    return {
        "crops": _crop(result, "synthetic", index) + _crop(result, side, other),
        "distance": result.nearest[0][index],
        "places": (result.place_of("synthetic", index), result.place_of(side, other)),
    }


def _distances(result: Evaluation) -> list[tuple[str, NDArray[np.float64]]]:
    """Distances to the nearest training crop, of each class and of held-out crops."""
    groups = {"synthetic, all": result.nearest[0]}
    classes = np.array([c or "" for c in result.sets["synthetic"].classes])
    groups |= {f"synthetic, {c}": result.nearest[0][classes == c] for c in sorted(set(classes.tolist()) - {""})}
    if "training" in result.sets:
        groups |= {"real, held out": nearest_training(result.near["training"].features, result.near["real"].features)[0]}
    return [(name, values) for name, values in groups.items() if len(values) >= 5]


def seam_tables(slides: Sequence[SlideCheck]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]], list[Profile]]]:
    """Title, head, rows and profiles of all slides together, then of those whose borders show most."""
    pooled = pool(slides) if len(slides) > 1 else []
    body = [
        (*_seam(p.seam), f"{p.visible_on} of {p.slides}", f"{Path(p.worst[0]).name}: {p.worst[1].score:.3f}") for p in pooled
    ]
    head = (*SEAM_HEAD, "visible on slides", "worst slide")
    together = [("All slides", head, body, _profiles([p.seam for p in pooled]))] if pooled else []
    return together + [
        (s.path, SEAM_HEAD, [_seam(x) for x in s.seams], _profiles(s.seams)) for s in worst_slides(slides, WORST)
    ]


def _seam(seam: SeamScore) -> tuple[str, ...]:
    pieces = f"{seam.pieces} of {seam.pieces + seam.left_out}" if seam.left_out else str(seam.pieces)
    return seam.name, f"{seam.score:.4f}", f"{seam.noise:.4f}", pieces, "visible" if seam.visible else ""


def _profiles(seams: Sequence[SeamScore]) -> list[Profile]:
    """Those of the last two groups of borders."""
    return [(s.name, s.profile) for s in seams[-2:] if s.profile]


def _consistency(slide: SlideCheck) -> tuple[Sequence[tuple[str, ...]], Sequence[tuple[str, ...]]]:
    levels = [(f"{a.level}", f"{a.downsample:.0f}", f"{a.difference:.2f}", f"{a.psnr:.1f}") for a in slide.levels]
    areas = [
        (a.name, "" if a.asked is None else f"{a.asked:,.0f}", f"{a.drawn:,.0f}", f"{a.tissue:.2f}" if a.drawn else "")
        for a in slide.areas
    ]
    return levels, areas


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
_OF_COPIES = ("authenticity", "c_t", "share_too_near", "nearer_than_held_out")
_SCALES = {"kid": 1000.0}


CLASS_HEAD = ("class", "real crops", "synthetic crops", "FID", "KID x 1000", "precision", "recall", "density", "coverage")
"""Columns of the table by class."""


def rows(result: Evaluation) -> list[Row]:
    """The numbers of all crops in the order a reader wants them."""
    out = []
    for key, (name, _, reading) in _FORMS.items():
        if key in result.numbers:
            if key == "c_t":
                reading = f"{reading} ({result.numbers['c_t_cells_used']:.0f} of {result.numbers['c_t_cells']:.0f} cells)"
            if key in _OF_COPIES and result.numbers["training_coverage"] < COVERED_LEAST:
                reading += f"; sees {result.numbers['training_coverage']:.0%} of the training tissue"
            out.append(Row(key, name, _value(key, result.numbers), reading))
    return out


def class_rows(result: Evaluation) -> list[tuple[str, ...]]:
    """One line a class, as `CLASS_HEAD` says; on the scales and with the deviations of the numbers of all crops."""
    keys = ("fid", "kid", "precision", "recall", "density", "coverage")
    return [
        (name, *(f"{row[f'{side}_crops']:.0f}" for side in ("real", "synthetic")), *(_value(k, row) for k in keys))
        for name, row in result.by_class.items()
    ]


def _value(key: str, numbers: Mapping[str, float]) -> str:
    """A number on its scale, with its deviation; empty where there is none."""
    if key not in numbers:
        return ""
    scale = _SCALES.get(key, 1.0)
    value = _FORMS[key][1].format(numbers[key] * scale)
    deviation = numbers.get(f"{key}_deviation")
    return value if deviation is None else f"{value} ± {deviation * scale:.3g}"


def extractor_line(result: Evaluation) -> str:
    """The extractor of every number."""
    e = result.extractor
    return f"features: {e['name']} ({e['version']}), sha256 {e['sha256'][:12]}"


def count_line(result: Evaluation) -> str:
    """Crops and images of every side."""
    counts, overlaps = result.counts, result.overlaps
    parts = [f"{n}: {c['crops']} crops of {c['images']} images ({overlaps[n]:.0%} overlap another)" for n, c in counts.items()]
    skipped = sum(c["skipped"] for c in counts.values())
    where = f"{result.settings.size_px} px at {result.mpp:g} um/px" if result.mpp else f"{result.settings.size_px} px"
    return "; ".join([*parts, where, *([f"{skipped} images skipped"] if skipped else [])])
