"""``wsigen train``: its commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsigen.cli.train_models import register

train = typer.Typer(help="Train models on your own slides.", no_args_is_help=True, rich_markup_mode=None)


@train.callback()
def root() -> None:
    """Train models on your own slides."""


@train.command()
def data(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET.yaml", help="what to train on; see docs/training-data.md")],
    cache: Annotated[
        Path | None, typer.Option("--cache", help="index, summary and contact sheet (default: DATASET.cache beside it)")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out images that cannot be opened")] = False,
) -> None:
    """Check the training data, build its index, sum it up and show random patches of it."""
    from wsigen.cli.train_data import run_data

    run_data(dataset, cache, skip_bad)


register(train)
