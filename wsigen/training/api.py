"""What a user calls to train: a recipe file in, a model's folder out. Nothing heavy is imported before the files are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsigen.dataset.dataset import Dataset
    from wsigen.training.loop import Outcome
    from wsigen.training.recipes import AnyRecipe

Say = Callable[[str], None]


def train_autoencoder(
    recipe: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    say: Say | None = None,
) -> Outcome:
    """Train an autoencoder on your own slides; writes OUT/vae.

    Parameters
    ----------
    recipe : str or Path
        YAML file with the settings (docs/training.md).
    out : str or Path
        Folder of checkpoint, losses, samples and result.
    resume : bool
        Go on from OUT/checkpoint.pt.
    cache : str or Path, optional
        The dataset's index; DATASET.cache by default.
    skip_bad : bool
        Leave out slides, and places of them, that cannot be read.
    say : callable, optional
        Called with a line for a person: notes on the data.

    Raises
    ------
    WsigenError
        For a recipe or dataset that is wrong, or a training that cannot begin or go on.
    """
    from wsigen.training.recipes import AutoencoderRecipe

    settings, dataset = _read(AutoencoderRecipe, recipe, cache, skip_bad, say)
    from wsigen.training.autoencoder_task import make_autoencoder

    return make_autoencoder(settings, dataset, Path(out), resume=resume)


def train_denoiser(
    recipe: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    say: Say | None = None,
) -> Outcome:
    """Train a denoiser on your own slides; writes OUT/bundle, which 'wsigen generate --model' takes.

    Parameters and errors are those of `train_autoencoder`.
    """
    from wsigen.training.recipes import DenoiserRecipe

    settings, dataset = _read(DenoiserRecipe, recipe, cache, skip_bad, say)
    from wsigen.training.make_denoiser import make_denoiser

    return make_denoiser(settings, dataset, Path(out), resume=resume)


def train_grid(
    recipe: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    say: Say | None = None,
) -> Outcome:
    """Train the network that draws the grids which a bundle follows; writes OUT/bundle, a copy of it that draws them itself.

    Parameters and errors are those of `train_autoencoder`.
    """
    from wsigen.training.recipes import GridRecipe

    settings, dataset = _read(GridRecipe, recipe, cache, skip_bad, say)
    from wsigen.training.make_grid import make_grid

    return make_grid(settings, dataset, Path(out), resume=resume)


def train_mask(
    recipe: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    say: Say | None = None,
) -> Outcome:
    """Train a model that draws layouts of whole slides; writes OUT/mask, which 'wsigen generate --mask-model' takes.

    Parameters and errors are those of `train_autoencoder`.
    """
    from wsigen.training.recipes import MaskRecipe

    settings, dataset = _read(MaskRecipe, recipe, cache, skip_bad, say)
    from wsigen.training.mask_data import read_maps
    from wsigen.training.mask_task import fit_mask

    data = read_maps(settings, dataset)
    if say:
        say(data.describe(settings.side))
    return fit_mask(settings, data, Path(out), resume=resume)


def _read(
    kind: type[AnyRecipe], recipe: str | Path, cache: str | Path | None, skip_bad: bool, say: Say | None
) -> tuple[AnyRecipe, Dataset]:
    """Read a recipe and open its dataset, before torch is imported."""
    from wsigen.dataset.dataset import open_dataset
    from wsigen.training.recipes import read_recipe

    settings = read_recipe(kind, Path(recipe))
    dataset = open_dataset(settings.dataset, cache, skip_bad)
    if say:
        for note in dataset.notes:
            say(f"note: {note}")
    return settings, dataset
