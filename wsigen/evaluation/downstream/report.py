"""The report of a downstream evaluation: its scores in words, for tables, ``downstream.json`` and ``downstream.html``."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.evaluation.downstream import label_fidelity as labels
from wsigen.evaluation.downstream.label_fidelity import label_fidelity
from wsigen.evaluation.downstream.results import ARMS, Arm, Downstream
from wsigen.evaluation.report.page import plain, render, write

HEAD = ("trained on", "balanced accuracy", "F1 (macro)", "balanced accuracy over real", "fold spread", "runs")
"""Columns of the table of scores; the classes' recalls follow."""


def write_downstream(result: Downstream, folder: Path) -> tuple[Path, Path]:
    """Write ``downstream.json`` and ``downstream.html`` into a folder, which is made if need be; return their paths."""
    return write(folder, "downstream", to_json(result), page(result))


def to_json(result: Downstream) -> dict[str, Any]:
    """Everything as plain values; a number that does not exist is null."""
    read = label_fidelity(result)
    means = [
        {"test": test, "arm": arm}
        | {name: asdict(result.score(arm, test, name)) for name in ("balanced_accuracy", "f1")}
        | {f"{name}_fold_spread": result.fold_spread(arm, test, name) for name in ("balanced_accuracy", "f1")}
        | {f"{name}_over_real": asdict(result.gain(arm, test, name)) for name in ("balanced_accuracy", "f1") if arm != "real"}
        for test in result.tests
        for arm in ARMS
    ]
    runs = [
        {"arm": r.arm, "seed": r.seed, "fold": r.fold, "test": r.test, "tested_fold": r.tested}
        | asdict(r.scores)
        | {"confusion": r.confusion.tolist()}
        for r in result.runs
    ]
    return plain(
        {
            "settings": asdict(result.settings),
            "mpp": result.mpp,
            "classes": result.classes,
            "parameters": result.parameters,
            "steps": result.steps,
            "training_crops": {"real": result.used[0], "synthetic": result.used[1]},
            "crops": result.counts,
            "folds": result.folds,
            "means": means,
            "runs": runs,
            "label_fidelity": labels.to_json(read) if read else None,
            "skipped": [asdict(s) for side in result.sides.values() for s in side.skipped],
            "warnings": result.warnings,
        }
    )


def page(result: Downstream) -> str:
    """Return the whole page."""
    name, read = "balanced accuracy", label_fidelity(result)
    return render(
        "downstream.html",
        result=result,
        notes=about(result),
        headline=[(f"{name}, trained on {arm}", result.score(arm, result.tests[0], "balanced_accuracy")) for arm in ARMS],
        explained=explained(result),
        head=[*HEAD, *result.classes],
        scores={test: rows(result, test) for test in result.tests},
        spreads={
            test: [(arm, [r.scores.balanced_accuracy for r in result.of(arm, test)]) for arm in ARMS] for test in result.tests
        },
        predicted=[f"as {name}" for name in result.classes],
        confusions={test: {arm: _confusion(result, test, arm) for arm in ARMS} for test in result.tests},
        labels=labels.rows(read) if read else None,
        labels_head=labels.HEAD,
        labels_explained=labels.explained(),
        folds=[(str(k + 1), ", ".join(groups)) for k, groups in enumerate(result.folds)],
    )


def _confusion(result: Downstream, test: str, arm: Arm) -> list[list[str]]:
    """The sum of all runs, a line a true class."""
    total = sum(r.confusion for r in result.of(arm, test))
    return [[name, *(f"{n:,}" for n in row)] for name, row in zip(result.classes, np.asarray(total).tolist(), strict=True)]


def rows(result: Downstream, test: str) -> list[list[str]]:
    """One line an arm, as ``HEAD`` and the classes say."""
    out = []
    for arm in ARMS:
        runs = result.of(arm, test)
        gain = "" if arm == "real" else f"{result.gain(arm, test, 'balanced_accuracy')}"
        recalls = [str(result.recall(arm, test, k)) for k in range(len(result.classes))]
        folds = result.fold_spread(arm, test, "balanced_accuracy")
        scored = [str(result.score(arm, test, name)) for name in ("balanced_accuracy", "f1")]
        out.append([arm, *scored, gain, "" if isnan(folds) else f"{folds:.3f}", str(len(runs)), *recalls])
    return out


def about(result: Downstream) -> list[str]:
    """Crops, network and steps, a line each."""
    s = result.settings
    where = f"{s.size_px} px at {result.mpp:g} um/px" if result.mpp else f"{s.size_px} px"
    counts = [f"{name}: {', '.join(f'{c} {n}' for c, n in by_class.items())}" for name, by_class in result.counts.items()]
    trained = f"trained on {result.used[0]} real crops, on {result.used[1]} synthetic ones, and on both"
    splits = f"{s.folds} folds of patients or slides" if s.folds else "no folds: all of REAL is trained on"
    return [
        f"crops of {where}; {'; '.join(counts)}",
        f"network {s.network} ({result.parameters / 1e6:.2f} M parameters), {trained}; {splits}, {s.seeds} seeds",
        f"every network takes the same {result.steps} steps of {s.batch} crops, each class equally often, turned and jittered",
    ]


def explained(result: Downstream) -> str:
    """How to read the table."""
    unit = "crops" if result.settings.task == "classification" else "labelled pixels"
    return (
        f"Means ± deviation over seeds, of the {unit} of all folds together; chance is a balanced accuracy of "
        f"{1 / len(result.classes):.2f}. Tests are real crops of patients or slides the networks have not seen; whether the "
        "generator has seen them is not known here. Over real: the mean difference to the networks of the same seed that were "
        "trained on real crops. Fold spread: the deviation of the balanced accuracy over folds (other patients to test "
        "on; of another dataset: other patients to train on), seeds together. The last columns are the recalls of the classes."
    )
