"""``wsigen evaluate downstream``: what synthetic slides are worth for a task."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from wsigen.cli.evaluate import Mpp

if TYPE_CHECKING:
    from wsigen.evaluation.downstream.results import Downstream

Side = "folder of tiles by class, annotated slides, or a dataset (FILE.yaml[#training])"


def downstream(
    real: Annotated[Path, typer.Argument(metavar="REAL", help=Side)],
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC", help="the same, of what was generated")],
    test: Annotated[list[Path] | None, typer.Option("--test", help="another real side to test on (may be repeated)")] = None,
    task: Annotated[str, typer.Option("--task", help="classification | segmentation")] = "classification",
    network: Annotated[str, typer.Option("--network", help="small | timm:NAME[@FILE]")] = "small",
    folds: Annotated[int, typer.Option("--folds", help="of REAL, by patient or slide; 0: test on --test alone")] = 5,
    ratio: Annotated[float, typer.Option("--ratio", help="synthetic crops per real training crop")] = 1.0,
    seeds: Annotated[int, typer.Option("--seeds", help="repetitions")] = 3,
    epochs: Annotated[int, typer.Option("--epochs", help="passes over the real crops; all arms take the same steps")] = 10,
    crops: Annotated[int, typer.Option("--crops", help="labelled crops of each side at most")] = 1000,
    size: Annotated[int, typer.Option("--size", help="side of a crop, px")] = 256,
    mpp: Mpp = None,
    real_mpp: Annotated[float | None, typer.Option("--real-mpp", help="um/px of REAL, if its files do not say it")] = None,
    synthetic_mpp: Annotated[float | None, typer.Option("--synthetic-mpp", help="um/px of SYNTHETIC")] = None,
    test_mpp: Annotated[float | None, typer.Option("--test-mpp", help="um/px of the --test sides")] = None,
    groups: Annotated[
        str | None, typer.Option("--groups", metavar="REGEX", help="finds the patient in a tile's path below REAL")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="crops of a training step")] = 32,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of crops, folds and the first repetition")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda ...")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", help="folder of downstream.html, downstream.json")] = None,
) -> None:
    """Train a task on real crops, on synthetic ones and on both; test on real crops of other patients."""
    from wsigen.evaluation.downstream.experiment import run_downstream
    from wsigen.evaluation.downstream.report import write_downstream
    from wsigen.evaluation.downstream.results import Settings
    from wsigen.evaluation.report.page import check_folder

    if out is not None:
        check_folder(out, "--out")
    stated = {"mpp": mpp, "real_mpp": real_mpp, "synthetic_mpp": synthetic_mpp, "test_mpp": test_mpp}
    settings = Settings(
        real, synthetic, tuple(test or ()), task, network, folds, ratio, seeds, epochs, crops, size, **stated,  # type: ignore[arg-type]
        groups=groups, batch=batch, seed=seed, device=device, scratch=out,
    )  # fmt: skip
    found = run_downstream(settings, _Progress())
    _print(found)
    if out:
        for path in write_downstream(found, out):
            print(path)


class _Progress:
    """A line for each thing done; on a terminal it grows while it is done."""

    def __init__(self) -> None:
        self._what, self._begin, self._last = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = monotonic()
        if what != self._what:
            self._what, self._begin = what, now
        live = sys.stderr.isatty()
        if done == total:
            print(f"{chr(13) * live}{what} {done} of {total} ({now - self._begin:.0f} s)", file=sys.stderr, flush=True)
        elif live and now - self._last > 0.2:
            self._last = now
            print(f"\r{what} {done} of {total}", end="", file=sys.stderr, flush=True)


def _print(found: Downstream) -> None:
    from rich.console import Console
    from rich.table import Table

    from wsigen.evaluation.downstream.report import HEAD, about, explained, rows

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
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
    for warning in found.warnings:
        console.print(f"note: {warning}", soft_wrap=True)
