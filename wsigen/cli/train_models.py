"""``wsigen train autoencoder``, ``denoiser`` and ``mask``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsigen.base.errors import ConfigError

if TYPE_CHECKING:
    from wsigen.training.loop import Outcome

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="the settings (docs/training.md)")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="checkpoint, losses, samples and the result go there")]
Resume = Annotated[bool, typer.Option("--resume", help="go on from DIR/checkpoint.pt")]
Cache = Annotated[Path | None, typer.Option("--cache", help="the dataset's index (default: DATASET.cache)")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="leave out slides, and places of them, that cannot be read")]


def autoencoder(recipe: RecipeFile, out: Out, resume: Resume = False, cache: Cache = None, skip_bad: SkipBad = False) -> None:
    """Train the autoencoder; writes DIR/vae."""
    from wsigen.training.make_autoencoder import make_autoencoder
    from wsigen.training.recipes import AutoencoderRecipe, read_recipe

    settings = read_recipe(AutoencoderRecipe, recipe)
    dataset = _dataset(settings.dataset, cache, skip_bad)
    _announce(make_autoencoder(settings, dataset, out, resume=resume), out / "vae", out)


def denoiser(recipe: RecipeFile, out: Out, resume: Resume = False, cache: Cache = None, skip_bad: SkipBad = False) -> None:
    """Train the denoiser; writes DIR/bundle, which 'wsigen generate --model' takes."""
    from wsigen.training.make_denoiser import make_denoiser
    from wsigen.training.recipes import DenoiserRecipe, read_recipe

    settings = read_recipe(DenoiserRecipe, recipe)
    dataset = _dataset(settings.dataset, cache, skip_bad)
    _announce(make_denoiser(settings, dataset, out, resume=resume), out / "bundle", out)


def mask(recipe: RecipeFile, out: Out, resume: Resume = False, cache: Cache = None, skip_bad: SkipBad = False) -> None:
    """Train a model of whole slides' layouts; writes DIR/mask, which 'wsigen generate --mask-model' takes."""
    from wsigen.training.make_mask import train_mask
    from wsigen.training.mask_data import read_maps
    from wsigen.training.mask_recipe import MaskRecipe
    from wsigen.training.recipes import read_recipe

    settings = read_recipe(MaskRecipe, recipe)
    data = read_maps(settings, _dataset(settings.dataset, cache, skip_bad))
    print(data.describe(settings.side), file=sys.stderr)
    _announce(train_mask(settings, data, out, resume=resume), out / "mask", out)


def register(app: typer.Typer) -> None:
    """Add the commands to ``wsigen train``."""
    app.command("autoencoder")(autoencoder)
    app.command("denoiser")(denoiser)
    app.command("mask")(mask)


def _dataset(file: Path, cache: Path | None, skip_bad: bool) -> Any:
    try:
        from wsigen.dataset.dataset import open_dataset
    except ImportError as error:
        raise ConfigError(f"training needs its extra: pip install 'wsigen[train]' ({error})") from None
    dataset = open_dataset(file, cache, skip_bad)
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    return dataset


def _announce(outcome: Outcome, result: Path, out: Path) -> None:
    if outcome.finished:
        print(f"{'result:':15}{result}")
        return
    print(f"stopped after step {outcome.step}; nothing is lost: go on with --resume --out {out}", file=sys.stderr)
