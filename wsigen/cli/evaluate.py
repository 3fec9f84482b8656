"""``wsigen evaluate``: how good synthetic slides are, as a table, JSON and HTML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wsigen.evaluation.results import Evaluation

Mpp = Annotated[float | None, typer.Option("--mpp", min=0.01, help="um/px at which crops are compared (default: the sides')")]


def evaluate(
    real: Annotated[
        Path, typer.Argument(metavar="REAL", help="a slide, a folder of slides or tiles, or a dataset (FILE.yaml[#training])")
    ],
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC", help="the same, of what was generated")],
    training: Annotated[Path | None, typer.Option("--training", help="what the model saw; REAL is then held out")] = None,
    features: Annotated[
        str, typer.Option("--features", help="embedded | imagenet | inception[:FILE] | timm:NAME[@FILE] | transformers:NAME")
    ] = "embedded",
    crops: Annotated[int, typer.Option("--crops", help="random crops of REAL and of SYNTHETIC")] = 2000,
    training_crops: Annotated[
        int | None,
        typer.Option(
            "--training-crops", help="of --training at most (default 10000); copies of what they do not cover are not seen"
        ),
    ] = None,
    size: Annotated[int, typer.Option("--size", help="side of a crop, px")] = 256,
    mpp: Mpp = None,
    real_mpp: Annotated[float | None, typer.Option("--real-mpp", help="um/px of REAL, if its files do not say it")] = None,
    synthetic_mpp: Annotated[float | None, typer.Option("--synthetic-mpp", help="um/px of SYNTHETIC")] = None,
    training_mpp: Annotated[float | None, typer.Option("--training-mpp", help="um/px of --training")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="which crops are drawn")] = 0,
    seam_period: Annotated[int | None, typer.Option("--seam-period", help="also look for borders every so many px")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="folder of report.html, report.json")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="feature files (default: REPORT/features)")] = None,
    device: Annotated[str, typer.Option("--device", help="of the extractor: cpu, cuda ...")] = "cpu",
) -> None:
    """Say how good synthetic slides are: fidelity, memorisation, seams, consistency."""
    from wsigen.base.errors import EvaluationError
    from wsigen.evaluation.evaluate import evaluate as run
    from wsigen.evaluation.extractors.extractors import open_extractor
    from wsigen.evaluation.report.page import check_folder
    from wsigen.evaluation.report.report import write_report
    from wsigen.evaluation.results import TRAINING_CROPS, Settings

    folder = cache or (report / "features" if report else None)
    for option, path in (("--report", report), ("--cache", cache)):
        if path is not None:
            check_folder(path, option)
    if training is None:
        for option, given in (("--training-crops", training_crops), ("--training-mpp", training_mpp)):
            if given is not None:
                raise EvaluationError(f"{option}: there is no --training that it speaks of; give that, or leave this out")
    stated = {"mpp": mpp, "real_mpp": real_mpp, "synthetic_mpp": synthetic_mpp, "training_mpp": training_mpp}
    settings = Settings(
        real, synthetic, training, crops, size, **stated,
        seed=seed, cache=folder, seam_period=seam_period,
        training_crops=TRAINING_CROPS if training_crops is None else training_crops,
    )  # fmt: skip
    found = run(settings, open_extractor(features, device), _watch)
    _print(found)
    if report:
        for path in write_report(found, report):
            print(path)


def _watch(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _print(found: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    from wsigen.evaluation.report.report import CLASS_HEAD, class_rows, count_line, extractor_line, rows
    from wsigen.evaluation.slide_checks import pool

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    table = Table("", "value", "how to read it", box=None, pad_edge=False)
    table.columns[0].overflow = table.columns[2].overflow = "fold"
    for row in rows(found):
        table.add_row(row.name, row.value, row.reading)
    for p in pool(found.slides):
        on = f"{p.slides} slides, found on {p.found_on}; worst {p.worst[1].score:.3f}: " if p.slides > 1 else ""
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
