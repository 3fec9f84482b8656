"""How a downstream evaluation is told, in tables and reports."""

from __future__ import annotations

from math import isnan

from wsigen.evaluation.downstream.results import Downstream
from wsigen.evaluation.downstream.settings import ARMS

HEAD = ("trained on", "balanced accuracy", "F1 (macro)", "balanced accuracy over real", "fold spread", "runs")
"""Columns of the table of scores; the classes' recalls follow."""


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
        f"Means +- deviation over seeds, of the {unit} of all folds together; chance is a balanced accuracy of "
        f"{1 / len(found.classes):.2f}. Tests are real crops of patients or slides the networks have not seen; whether the "
        "generator has seen them is not known here. Over real: the mean difference to the networks of the same seed that were "
        "trained on real crops. Fold spread: the deviation of the balanced accuracy over folds (other patients to test "
        "on; of another dataset: other patients to train on), seeds together. The last columns are the recalls of the classes."
    )
