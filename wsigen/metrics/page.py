"""The report as one HTML page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from wsigen.errors import WsigenError
from wsigen.metrics.drawings import boxes, lines, scatter
from wsigen.metrics.evaluation import Evaluation
from wsigen.metrics.gradients import REACH_PX
from wsigen.metrics.memorisation import nearest_training
from wsigen.metrics.sides import read_crop
from wsigen.metrics.words import count_line, extractor_line, rows

SHOWN, THUMB_PX, QUALITY = 24, 160, 85
"""Crops shown of a side, their side in px, their JPEG quality: a page of some 500 kB."""

_NUMBER = re.compile(r"(-?[\d.,]+(e[-+]\d+)?|inf|nan)?( \+- .*)?")
"""What a cell of a column of numbers holds: a number, perhaps with its deviation, or nothing."""

STYLE = """
:root{--ink:#22252a;--soft:#6b7280;--line:#e5e7eb;--real:#2563eb;--synthetic:#d9480f;--bad:#b42318}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);max-width:1080px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.3rem 0}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:.35rem .6rem;text-align:left;
border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}
.warn{border-left:4px solid #f59e0b;background:#fffbeb;padding:.5rem .9rem;margin:1rem 0}.warn li{overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1.4rem}.grid{display:grid;grid-template-columns:repeat(6,1fr);gap:3px}
.grid img,.pairs img{width:100%;display:block;border-radius:2px}.pairs{display:grid;grid-template-columns:repeat(8,1fr);gap:8px}
figure{margin:0}figcaption{font-size:.8rem;color:var(--soft)}.bad{color:var(--bad);font-weight:600}svg{max-width:100%;height:auto}
@media(max-width:700px){.two{grid-template-columns:1fr}.pairs{grid-template-columns:repeat(4,1fr)}}
"""


def page(found: Evaluation) -> str:
    """Return the whole page."""
    sections = [_numbers(found), _crops(found), _nearest(found), _plot(found), _classes(found), _distances(found)]
    sections += [_seams(found), _consistency(found)]
    synthetic, real = escape(str(found.settings.synthetic)), escape(str(found.settings.real))
    head = f"<h1>How good the synthetic slides are</h1><p>{synthetic} against {real}</p>"
    lines = f'<p class="soft">{escape(count_line(found))}<br>{escape(extractor_line(found))}</p>'
    body = "\n".join([head, lines, _warnings(found.warnings), *sections])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>wsigen evaluation</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>\n'
    )


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table; columns of numbers are set to the right."""
    cells = [list(row) for row in body]
    numeric = [all(_NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(head))]
    kinds = [' class="n"' if n else "" for n in numeric]
    top = "".join(f"<th{k}>{escape(h)}</th>" for k, h in zip(kinds, head, strict=True))
    rest = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kinds, row, strict=True)) + "</tr>" for row in cells
    )
    return f"<table><tr>{top}</tr>{rest}</table>"


def _section(title: str, content: str, note: str = "") -> str:
    noted = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{noted}{content}</section>"


def _warnings(warnings: list[str]) -> str:
    items = "".join(f"<li>{escape(w)}</li>" for w in warnings)
    return f'<div class="warn"><b>Know before you read</b><ul>{items}</ul></div>' if warnings else ""


def _numbers(found: Evaluation) -> str:
    return _section("Numbers", table(("", "value", "how to read it"), ((r.name, r.value, r.reading) for r in rows(found))))


def _picture(found: Evaluation, side: str, index: int) -> str:
    """A crop as an image tag with its pixels inside; empty if it can no longer be read."""
    from PIL import Image

    part = found.sets[side]
    try:
        image = Image.fromarray(read_crop(found.sides[side], part.crops[index]))
    except WsigenError:
        return ""
    image.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(side)} crop {index}" src="data:image/jpeg;base64,{data}">'


def _crops(found: Evaluation) -> str:
    columns = []
    for side in ("real", "synthetic"):
        count = len(found.sets[side].crops)
        chosen = np.random.default_rng(found.settings.seed).permutation(count)[:SHOWN]
        images = "".join(_picture(found, side, int(i)) for i in chosen)
        columns.append(f'<div><p class="soft">{side}</p><div class="grid">{images}</div></div>')
    return _section("Random crops", f'<div class="two">{"".join(columns)}</div>', "Drawn at random, none chosen.")


def _nearest(found: Evaluation) -> str:
    if found.nearest is None:
        return ""
    distance, index = found.nearest
    side = "training" if "training" in found.sides else "real"
    figures = []
    for i in np.argsort(distance, kind="stable")[:16]:
        pair = _picture(found, "synthetic", int(i)) + _picture(found, side, int(index[i]))
        figures.append(f"<figure>{pair}<figcaption>{distance[i]:.3g}</figcaption></figure>")
    note = (
        f"The synthetic crops nearest to any {side} crop (above), that crop (below) and their distance. Copies would show here."
    )
    return _section("Nearest neighbours", f'<div class="pairs">{"".join(figures)}</div>', note)


def _plot(found: Evaluation) -> str:
    points = [("all", found.numbers["recall"], found.numbers["precision"])]
    points += [(n, row["recall"], row["precision"]) for n, row in found.by_class.items() if "precision" in row]
    return _section("Precision and recall", scatter(points, "recall (diversity)", "precision (realism)"))


def _classes(found: Evaluation) -> str:
    if not found.by_class:
        return ""
    keys = ("fid", "kid", "precision", "recall", "density", "coverage")
    body = []
    for name, row in found.by_class.items():
        values = [f"{row[k] * (1000 if k == 'kid' else 1):.3g}" if k in row else "" for k in keys]
        body.append((name, f"{row['real_crops']:.0f}", f"{row['synthetic_crops']:.0f}", *values))
    head = ("class", "real crops", "synthetic crops", "FID", "KID x 1000", *keys[2:])
    return _section("By class", table(head, body), "FID of few crops is mostly bias: compare classes of like counts.")


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
    return _section("Distance to the nearest training crop", boxes(shown, "distance in feature space"), note)


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    return [float(v) for v in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]


def _seams(found: Evaluation) -> str:
    parts = []
    for slide in found.slides:
        if not slide.seams:
            continue
        body = [
            (s.name, f"{s.score:.4f}", f"{s.noise:.4f}", str(s.pieces), "can be found" if s.found else "") for s in slide.seams
        ]
        at = list(range(-REACH_PX, REACH_PX + 1))
        series = [(s.name, s.profile) for s in (*slide.seams[-2:],) if s.profile]
        drawn = lines(at, series, "px from the border", "gradient, 1 = away from borders")
        parts.append(
            f"<p><b>{escape(slide.path)}</b></p>{table(('borders', 'seam score', 'noise', 'pieces', ''), body)}{drawn}"
        )
    note = (
        "1.00: nobody can find the borders. Found: more than three standard errors above. Teeth every 8 px in the profile are "
        "JPEG's blocks and the autoencoder's cells; borders are compared with places 16, 32 and 48 px away, on the same teeth."
    )
    return _section("Seams", "".join(parts), note) if parts else ""


def _consistency(found: Evaluation) -> str:
    parts = []
    for slide in found.slides:
        levels = [(f"{a.level}", f"{a.downsample:.0f}", f"{a.difference:.2f}", f"{a.psnr:.1f}") for a in slide.levels]
        areas = [
            (a.name, "" if a.asked is None else f"{a.asked:,.0f}", f"{a.drawn:,.0f}", f"{a.tissue:.2f}") for a in slide.areas
        ]
        if levels or areas:
            parts.append(f"<p><b>{escape(slide.path)}</b></p>")
        if levels:
            parts.append(table(("level", "downsample", "mean difference (grey levels)", "PSNR (dB)"), levels))
        if areas:
            parts.append(table(("class", "asked for (px)", "drawn (px)", "share that shows tissue"), areas))
    return _section("Levels and classes", "".join(parts)) if parts else ""
