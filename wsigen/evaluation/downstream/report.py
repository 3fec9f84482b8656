"""The report of a downstream evaluation: its scores in words, for tables, ``downstream.json`` and ``downstream.html``."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.evaluation.downstream.results import ARMS, Arm, Downstream
from wsigen.evaluation.report.page import plain, render, write

HEAD = ("trained on", "balanced accuracy", "F1 (macro)", "balanced accuracy over real", "fold spread", "runs")
"""Columns of the table of scores; the classes' recalls follow."""


def write_downstream(found: Downstream, folder: Path) -> tuple[Path, Path]:
    """Write ``downstream.json`` and ``downstream.html`` into a folder, which is made if need be; return their paths."""
    return write(folder, "downstream", to_json(found), page(found))


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
    runs = [
        {"arm": r.arm, "seed": r.seed, "fold": r.fold, "test": r.test, "tested_fold": r.tested}
        | asdict(r.scores)
        | {"confusion": r.confusion.tolist()}
        for r in found.runs
    ]
    return plain(
        {
            "settings": asdict(found.settings),
            "mpp": found.mpp,
            "classes": found.classes,
            "parameters": found.parameters,
            "steps": found.steps,
            "training_crops": {"real": found.used[0], "synthetic": found.used[1]},
            "crops": found.counts,
            "folds": found.folds,
            "means": means,
            "runs": runs,
            "skipped": [asdict(s) for side in found.sides.values() for s in side.skipped],
            "warnings": found.warnings,
        }
    )


def page(found: Downstream) -> str:
    """Return the whole page."""
    name = "balanced accuracy"
    return render(
        "downstream.html",
        found=found,
        notes=about(found),
        headline=[(f"{name}, trained on {arm}", found.score(arm, found.tests[0], "balanced_accuracy")) for arm in ARMS],
        explained=explained(found),
        head=[*HEAD, *found.classes],
        scores={test: rows(found, test) for test in found.tests},
        spreads={
            test: [(arm, [r.scores.balanced_accuracy for r in found.of(arm, test)]) for arm in ARMS] for test in found.tests
        },
        predicted=[f"as {name}" for name in found.classes],
        confusions={test: {arm: _confusion(found, test, arm) for arm in ARMS} for test in found.tests},
        folds=[(str(k + 1), ", ".join(groups)) for k, groups in enumerate(found.folds)],
    )


def _confusion(found: Downstream, test: str, arm: Arm) -> list[list[str]]:
    """The sum of all runs, a line a true class."""
    total = sum(r.confusion for r in found.of(arm, test))
    return [[name, *(f"{n:,}" for n in row)] for name, row in zip(found.classes, np.asarray(total).tolist(), strict=True)]


def rows(found: Downstream, test: str) -> list[list[str]]:
    """One line an arm, as ``HEAD`` and the classes say."""
    out = []
    for arm in ARMS:
        runs = found.of(arm, test)
        gain = "" if arm == "real" else f"{found.gain(arm, test, 'balanced_accuracy')}"
        recalls = [str(found.recall(arm, test, k)) for k in range(len(found.classes))]
        folds = found.fold_spread(arm, test, "balanced_accuracy")
        scored = [str(found.score(arm, test, name)) for name in ("balanced_accuracy", "f1")]
        out.append([arm, *scored, gain, "" if isnan(folds) else f"{folds:.3f}", str(len(runs)), *recalls])
    return out


def about(found: Downstream) -> list[str]:
    """Crops, network and steps, a line each."""
    s = found.settings
    where = f"{s.size_px} px at {found.mpp:g} um/px" if found.mpp else f"{s.size_px} px"
    counts = [f"{name}: {', '.join(f'{c} {n}' for c, n in by_class.items())}" for name, by_class in found.counts.items()]
    trained = f"trained on {found.used[0]} real crops, on {found.used[1]} synthetic ones, and on both"
    splits = f"{s.folds} folds of patients or slides" if s.folds else "no folds: all of REAL is trained on"
    return [
        f"crops of {where}; {'; '.join(counts)}",
        f"network {s.network} ({found.parameters / 1e6:.2f} M parameters), {trained}; {splits}, {s.seeds} seeds",
        f"every network takes the same {found.steps} steps of {s.batch} crops, each class equally often, turned and jittered",
    ]


def explained(found: Downstream) -> str:
    """How to read the table."""
    unit = "crops" if found.settings.task == "classification" else "labelled pixels"
    return (
        f"Means ± deviation over seeds, of the {unit} of all folds together; chance is a balanced accuracy of "
        f"{1 / len(found.classes):.2f}. Tests are real crops of patients or slides the networks have not seen; whether the "
        "generator has seen them is not known here. Over real: the mean difference to the networks of the same seed that were "
        "trained on real crops. Fold spread: the deviation of the balanced accuracy over folds (other patients to test "
        "on; of another dataset: other patients to train on), seeds together. The last columns are the recalls of the classes."
    )
