"""What a downstream evaluation leaves behind: ``downstream.json`` and a self-contained ``downstream.html``."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.version import __version__
from wsigen.evaluation.downstream.results import Downstream
from wsigen.evaluation.downstream.settings import ARMS
from wsigen.evaluation.downstream.words import HEAD, about, explained, rows
from wsigen.evaluation.report.drawings import boxes
from wsigen.evaluation.report.html import document, picture, section, table, warned
from wsigen.evaluation.report.report import finite
from wsigen.storage.files import write_atomic


def to_json(found: Downstream) -> dict[str, Any]:
    """Everything as plain values; a number that does not exist is null."""
    means = [
        {"test": test, "arm": arm}
        | {name: asdict(found.score(arm, test, name)) for name in ("balanced_accuracy", "f1")}
        | {f"{name}_fold_spread": found.fold_spread(arm, test, name) for name in ("balanced_accuracy", "f1")}
        | {f"{name}_over_real": asdict(found.gain(arm, test, name)) for name in ("balanced_accuracy", "f1") if arm != "real"}
        for test in found.tests
        for arm in ARMS
    ]
    given = asdict(found.settings)
    return finite(
        {
            "format": 1,
            "wsigen": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {k: _plain(v) for k, v in given.items()},
            "mpp": found.mpp,
            "classes": found.classes,
            "parameters": found.parameters,
            "steps": found.steps,
            "training_crops": {"real": found.used[0], "synthetic": found.used[1]},
            "crops": found.counts,
            "folds": found.folds,
            "means": means,
            "runs": [
                {
                    "arm": r.arm,
                    "seed": r.seed,
                    "fold": r.fold,
                    "test": r.test,
                    "tested_fold": r.tested,
                    **asdict(r.scores),
                    "confusion": r.confusion.tolist(),
                }
                for r in found.runs
            ],
            "skipped": [asdict(s) for side in found.sides.values() for s in side.skipped],
            "warnings": found.warnings,
        }
    )


def write_downstream(found: Downstream, folder: Path) -> tuple[Path, Path]:
    """Write ``downstream.json`` and ``downstream.html`` into a folder, which is made if need be; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, html = folder / "downstream.json", folder / "downstream.html"
    write_atomic(numbers, json.dumps(to_json(found), indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_atomic(html, page(found).encode())
    return numbers, html


def page(found: Downstream) -> str:
    """Return the whole page."""
    real, synthetic = escape(str(found.settings.real)), escape(str(found.settings.synthetic))
    head = f"<h1>What the synthetic slides are worth</h1><p>{synthetic} beside {real}, {found.settings.task}</p>"
    lines = f'<p class="soft">{"<br>".join(escape(line) for line in about(found))}</p>'
    parts = [_scores(found), _plots(found), _confusions(found), _crops(found), _folds(found)]
    return document("wsigen evaluation, downstream", "\n".join([head, lines, warned(found.warnings), *parts]))


def _scores(found: Downstream) -> str:
    parts = [f"<p><b>{escape(test)}</b></p>{table([*HEAD, *found.classes], rows(found, test))}" for test in found.tests]
    return section("Scores", "".join(parts), explained(found))


def _plots(found: Downstream) -> str:
    parts = []
    for test in found.tests:
        values = {arm: [r.scores.balanced_accuracy for r in found.of(arm, test)] for arm in ARMS}
        drawn = boxes([(arm, _quantiles(v)) for arm, v in values.items()], "balanced accuracy")
        parts.append(f"<p><b>{escape(test)}</b></p>{drawn}")
    return section("Over seeds and folds", "".join(parts), "Bars: middle half, whiskers: 5 to 95 %, mark: median.")


def _quantiles(values: list[float]) -> list[float]:
    return [float(v) for v in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]


def _confusions(found: Downstream) -> str:
    unit = "crops" if found.settings.task == "classification" else "pixels"
    parts = []
    for test in found.tests:
        for arm in ARMS:
            total = sum(r.confusion for r in found.of(arm, test))
            body = [(c, *(f"{n:,}" for n in row)) for c, row in zip(found.classes, np.asarray(total).tolist(), strict=True)]
            head = (f"{arm}: true", *(f"as {c}" for c in found.classes))
            parts.append(f"<div>{table(head, body)}</div>")
        parts.append(f'<p class="soft">{escape(test)}</p>')
    return section("Confusions", f'<div class="two">{"".join(parts)}</div>', f"Sums of all runs, {unit}.")


def _crops(found: Downstream) -> str:
    parts = []
    for name in found.classes:
        shown = []
        for side, by_class in found.examples.items():
            images = "".join(picture(p, f"{side} {name}") for p in by_class[name])
            shown.append(f'<div><p class="soft">{escape(side)}: {escape(name)}</p><div class="grid">{images}</div></div>')
        parts.append(f'<div class="two">{"".join(shown)}</div>')
    return section("Crops by class", "".join(parts), "Some of each, none chosen.")


def _folds(found: Downstream) -> str:
    if not found.folds:
        return ""
    body = [(str(k + 1), ", ".join(groups)) for k, groups in enumerate(found.folds)]
    return section("Folds", table(("fold", "patients or slides it tests"), body))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
