"""``wsigen evaluate``, ``evaluate downstream`` and ``evaluate labels``: how good synthetic slides are."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsigen.cli.options import parameters_of
from wsigen.evaluation import api

if TYPE_CHECKING:
    from rich.console import Console

    from wsigen.evaluation.downstream.label_fidelity import LabelFidelity
    from wsigen.evaluation.downstream.results import Downstream
    from wsigen.evaluation.evaluate import Evaluation

GROUPS = {
    **dict.fromkeys(("crops", "training_crops", "turned", "size", "seed", "mpp", "seam_period"), "Crops"),
    **dict.fromkeys(("real_mpp", "synthetic_mpp", "training_mpp", "test_mpp"), "Sides"),
    **dict.fromkeys(("test", "training", "groups", "layout_names"), "Sides"),
    **dict.fromkeys(("task", "network", "folds", "ratio", "seeds", "epochs", "batch"), "Task"),
    **dict.fromkeys(("report", "out", "cache"), "Output"),
}
"""Headings of the options on the help pages."""


@parameters_of(api.evaluate, GROUPS)
def evaluate(**given: Any) -> None:
    """Print what `wsigen.evaluate` found."""
    found = api.evaluate(**given, watch=Progress())
    _print(found)
    if given["report"]:
        _print_paths(given["report"], "report.json", "report.html")


@parameters_of(api.evaluate_downstream, GROUPS)
def downstream(**given: Any) -> None:
    """Print what `wsigen.evaluate_downstream` found."""
    found = api.evaluate_downstream(**given, watch=Progress())
    _print_downstream(found)
    if given["out"]:
        _print_paths(given["out"], "downstream.json", "downstream.html")


@parameters_of(api.evaluate_labels, GROUPS)
def labels(**given: Any) -> None:
    """Print what `wsigen.evaluate_labels` found."""
    found = api.evaluate_labels(**given, watch=Progress())
    _print_labels(found)
    if given["out"]:
        _print_paths(given["out"], "labels.json", "labels.html")


class Progress:
    """A line for each thing done; on a terminal it grows while it is done."""

    def __init__(self) -> None:
        self._what, self._begin, self._last = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """So many are done, of so many."""
        now = monotonic()
        if what != self._what:
            self._what, self._begin = what, now
        live = sys.stderr.isatty()
        if done == total:
            print(f"{chr(13) * live}{what} {done} of {total} ({now - self._begin:.0f} s)", file=sys.stderr, flush=True)
        elif live and now - self._last > 0.2:
            self._last = now
            print(f"\r{what} {done} of {total}", end="", file=sys.stderr, flush=True)


def _console(width: int) -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else width)


def _print_paths(folder: Path, *names: str) -> None:
    for name in names:
        print(folder / name)


def _print(found: Evaluation) -> None:
    from rich.table import Table

    from wsigen.evaluation.report.report import CLASS_HEAD, class_rows, count_line, extractor_line, rows
    from wsigen.evaluation.slide_checks import pool

    console = _console(140)
    table = Table("", "value", "how to read it", box=None, pad_edge=False)
    table.columns[0].overflow = table.columns[2].overflow = "fold"
    for row in rows(found):
        table.add_row(row.name, row.value, row.reading)
    for p in pool(found.slides):
        on = f"{p.slides} slides, visible on {p.visible_on}; worst {p.worst[1].score:.3f}: " if p.slides > 1 else ""
        value = f"{p.seam.score:.3f} ± {p.seam.noise:.3f}"
        table.add_row(f"seams: {p.seam.name}", value, f"{on}{Path(p.worst[0]).name}")
    console.print(count_line(found), soft_wrap=True)
    console.print(extractor_line(found), soft_wrap=True)
    console.print(table)
    if found.by_class:
        classes = Table(*CLASS_HEAD, box=None, pad_edge=False, title="By class", title_justify="left")
        for cells in class_rows(found):
            classes.add_row(*cells)
        console.print(classes)
    for warning in found.warnings:
        console.print(f"note: {warning}", soft_wrap=True)


def _print_downstream(found: Downstream) -> None:
    from rich.table import Table

    from wsigen.evaluation.downstream.label_fidelity import label_fidelity
    from wsigen.evaluation.downstream.report import HEAD, about, explained, rows

    console = _console(160)
    for line in about(found):
        console.print(line, soft_wrap=True)
    for test in found.tests:
        table = Table(
            *HEAD, *(f"recall {c}" for c in found.classes), box=None, pad_edge=False, title=test, title_justify="left"
        )
        for row in rows(found, test):
            table.add_row(*row)
        console.print(table)
    console.print(explained(found), soft_wrap=True)
    if read := label_fidelity(found):
        _print_table(console, read)
    for warning in found.warnings:
        console.print(f"note: {warning}", soft_wrap=True)


def _print_labels(found: LabelFidelity) -> None:
    from wsigen.evaluation.downstream.label_fidelity import about

    console = _console(160)
    for line in about(found):
        console.print(line, soft_wrap=True)
    _print_table(console, found)
    for warning in found.result.warnings:
        console.print(f"note: {warning}", soft_wrap=True)


def _print_table(console: Console, found: LabelFidelity) -> None:
    from rich.table import Table

    from wsigen.evaluation.downstream.label_fidelity import HEAD, explained, rows

    table = Table(*HEAD, box=None, pad_edge=False, title="Label fidelity", title_justify="left")
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(explained(), soft_wrap=True)
