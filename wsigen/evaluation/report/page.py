"""The report as one HTML page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import WsigenError
from wsigen.evaluation.evaluate import Evaluation
from wsigen.evaluation.memorisation import nearest_training
from wsigen.evaluation.report.drawings import boxes, scatter
from wsigen.evaluation.report.html import document, picture, section, table, warned
from wsigen.evaluation.report.page_seams import seams_section
from wsigen.evaluation.report.traces import hits_by_slide, nearest_pairs, training_side
from wsigen.evaluation.report.words import CLASS_HEAD, class_rows, count_line, extractor_line, rows
from wsigen.evaluation.sides.sides import read_crop

SHOWN = 24
"""Crops shown of a side: a page of some 500 kB."""

HITS = 20
"""Training slides listed."""


def page(found: Evaluation) -> str:
    """Return the whole page."""
    sections = [_numbers(found), _crops(found), _nearest(found), _plot(found), _classes(found), _distances(found)]
    sections += [seams_section(found.slides), _consistency(found)]
    synthetic, real = escape(str(found.settings.synthetic)), escape(str(found.settings.real))
    head = f"<h1>How good the synthetic slides are</h1><p>{synthetic} against {real}</p>"
    lines = f'<p class="soft">{escape(count_line(found))}<br>{escape(extractor_line(found))}</p>'
    body = "\n".join([head, lines, warned(found.warnings), *sections])
    return document("wsigen evaluation", body)


def _numbers(found: Evaluation) -> str:
    return section("Numbers", table(("", "value", "how to read it"), ((r.name, r.value, r.reading) for r in rows(found))))


def _picture(found: Evaluation, side: str, index: int) -> str:
    """A crop as an image tag with its pixels inside; empty if it can no longer be read."""
    part = found.sets[side]
    try:
        return picture(read_crop(found.sides[side], part.crops[index]), f"{side} crop {index}")
    except WsigenError:
        return ""


def _crops(found: Evaluation) -> str:
    columns = []
    for side in ("real", "synthetic"):
        count = len(found.sets[side].crops)
        chosen = np.random.default_rng(found.settings.seed).permutation(count)[:SHOWN]
        images = "".join(_picture(found, side, int(i)) for i in chosen)
        columns.append(f'<div><p class="soft">{side}</p><div class="grid">{images}</div></div>')
    return section("Random crops", f'<div class="two">{"".join(columns)}</div>', "Drawn at random, none chosen.")


def _nearest(found: Evaluation) -> str:
    if found.nearest is None:
        return ""
    distance, index = found.nearest
    side, pairs, figures = training_side(found), nearest_pairs(found), []
    for i in np.argsort(distance, kind="stable")[:16]:
        pair = _picture(found, "synthetic", int(i)) + _picture(found, side, int(index[i]))
        told = f"{distance[i]:.3g}<br>{escape(str(pairs[i][1]))}<br>{escape(str(pairs[i][2]))}"
        figures.append(f"<figure>{pair}<figcaption>{told}</figcaption></figure>")
    note = (
        f"The synthetic crops nearest to any {side} crop (above), that crop (below), their distance, and where both lie (slide "
        "@ x,y of the upper left corner in px of level 0). Copies would show here."
    )
    return section("Nearest neighbours", f'<div class="pairs">{"".join(figures)}</div>{_hits(found)}', note)


def _hits(found: Evaluation) -> str:
    """How the nearest training crops are spread over slides: a copied slide attracts more than its share."""
    hits, side = hits_by_slide(found), training_side(found)
    head = (f"{side} slide", "nearest to so many synthetic crops", f"of its {side} crops")
    shown = table(head, [(h.file, f"{h.hits:,}", f"{h.crops:,}") for h in hits[:HITS]])
    return shown + (f'<p class="soft">and {len(hits) - HITS} more</p>' if len(hits) > HITS else "")


def _plot(found: Evaluation) -> str:
    points = [("all", found.numbers["recall"], found.numbers["precision"])]
    points += [(n, row["recall"], row["precision"]) for n, row in found.by_class.items() if "precision" in row]
    return section("Precision and recall", scatter(points, "recall (diversity)", "precision (realism)"))


def _classes(found: Evaluation) -> str:
    if not found.by_class:
        return ""
    return section(
        "By class", table(CLASS_HEAD, class_rows(found)), "FID of few crops is mostly bias: compare classes of like counts."
    )


def _distances(found: Evaluation) -> str:
    """Distances to the nearest training crop, of each class and of held-out crops."""
    if found.nearest is None:
        return ""
    groups = {"synthetic, all": found.nearest[0]}
    classes = np.array([c or "" for c in found.sets["synthetic"].classes])
    groups |= {f"synthetic, {c}": found.nearest[0][classes == c] for c in sorted(set(classes.tolist()) - {""})}
    if "training" in found.sets:
        groups |= {"real, held out": nearest_training(found.sets["training"].features, found.sets["real"].features)[0]}
    shown = [(name, _quantiles(v)) for name, v in groups.items() if len(v) >= 5]
    note = "Bars: middle half, whiskers: 5 to 95 %, mark: median."
    return section("Distance to the nearest training crop", boxes(shown, "distance in feature space"), note)


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    return [float(v) for v in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]


def _consistency(found: Evaluation) -> str:
    parts = []
    for slide in found.slides:
        levels = [(f"{a.level}", f"{a.downsample:.0f}", f"{a.difference:.2f}", f"{a.psnr:.1f}") for a in slide.levels]
        areas = [
            (
                a.name,
                "" if a.asked is None else f"{a.asked:,.0f}",
                f"{a.drawn:,.0f}",
                f"{a.tissue:.2f}" if a.drawn else "",
            )
            for a in slide.areas
        ]
        if levels or areas:
            parts.append(f"<p><b>{escape(slide.path)}</b></p>")
        if levels:
            parts.append(table(("level", "downsample", "mean difference (grey levels)", "PSNR (dB)"), levels))
        if areas:
            parts.append(table(("class", "asked for (px)", "drawn (px)", "share that shows tissue"), areas))
    return section("Levels and classes", "".join(parts)) if parts else ""
