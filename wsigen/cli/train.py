"""``wsigen train data``, ``autoencoder``, ``denoiser``, ``grid``, ``tokens`` and ``mask``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wsigen.cli.options import examples, parameters_of
from wsigen.training import api

train = typer.Typer(no_args_is_help=True)


@train.callback(epilog=examples("wsigen train data dataset.yaml"))
def root() -> None:
    """Train models on your own slides: look at the data, then autoencoder and denoiser; networks of grids, tokens, layouts."""


@train.command(no_args_is_help=True, epilog=examples("wsigen train data dataset.yaml"))
def data(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET.yaml", help="what to train on (docs/training-data.md)")],
    cache: Annotated[
        Path | None, typer.Option("--cache", help="index, summary and contact sheet; DATASET.cache by default")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out images that cannot be opened")] = False,
) -> None:
    """Check the training data, build its index, sum it up and show random patches of it."""
    from wsigen.dataset.dataset import open_dataset
    from wsigen.dataset.settings import cache_of
    from wsigen.dataset.summary import summarise, write_sheet
    from wsigen.storage.files import write_atomic

    folder = cache if cache is not None else cache_of(dataset)
    opened = open_dataset(dataset, folder, skip_bad, _show_indexing)
    summary = summarise(opened)
    write_atomic(folder / "summary.json", json.dumps(summary, indent=2).encode())
    write_sheet(opened, folder / "patches.png", opened.settings.seed)
    _print_summary(summary)
    for label, name in (("index", "index.npz"), ("summary", "summary.json"), ("contact sheet", "patches.png")):
        print(f"{label + ':':15}{folder / name}")


def _add(function: Callable[..., Any], file: str) -> None:
    """Add the command of a training."""
    name = function.__name__.removeprefix("train_")

    @train.command(name, no_args_is_help=True, epilog=examples(f"wsigen train {name} {file} --out {name}"))
    @parameters_of(function, like=api.train_autoencoder)
    def command(**given: Any) -> None:
        trained = function(**given, say=lambda line: print(line, file=sys.stderr))
        if trained.result:
            print(f"{'result:':15}{trained.result}")
            return
        out = given["out"]
        print(f"stopped after step {trained.step}; nothing is lost: go on with --resume --out {out}", file=sys.stderr)


_add(api.train_autoencoder, "autoencoder.yaml")
_add(api.train_denoiser, "denoiser.yaml")
_add(api.train_grid, "grid.yaml")
_add(api.train_tokens, "tokens.yaml")
_add(api.train_mask, "mask.yaml")


def _show_indexing(done: int, total: int, name: str) -> None:
    if total < 50 or done % (total // 20) == 0:
        print(f"indexing {done + 1}/{total}: {name}", file=sys.stderr, flush=True)


def _print_summary(summary: dict[str, Any]) -> None:
    """Print the figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120, markup=False)
    for split, s in summary["splits"].items():
        mpp = "" if s["um_per_px"] is None else f", {s['um_per_px'][0]}-{s['um_per_px'][1]} um/px"
        title = f"{split}: {s['images']} images ({s['labelled_images']} with labels) of {s['groups']} groups{mpp}"
        table = Table(title=title, title_justify="left")
        for column in ("level", "class", "patches", "Mpx"):
            table.add_column(column, justify="left" if column in ("level", "class") else "right")
        for name, level in s["levels"].items():
            for class_name, figures in level["classes"].items():
                table.add_row(name, class_name, str(figures["patches"]), f"{figures['px'] / 1e6:.2f}")
            unknown = "-" if level["unknown_share"] is None else f"{100 * level['unknown_share']:.1f} %"
            small = f", {level['images_too_small']} images too small" if level["images_too_small"] else ""
            about = f"all ({level['um_per_px']} um/px; {unknown} unknown{small})"
            little = f", {level['little_labelled_patches']} with little label" if level["little_labelled_patches"] else ""
            patches = f"{level['patches']} ({level['unlabelled_patches']} unlabelled{little})"
            table.add_row(name, about, patches, "", end_section=True)
        if s["images"]:
            console.print(table)
    for note in summary["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    if summary["skipped"]:
        console.print(f"{len(summary['skipped'])} images could not be opened and are left out:", highlight=False)
        for bad in summary["skipped"]:
            console.print(f"  {bad['reason']}", highlight=False, markup=False)
