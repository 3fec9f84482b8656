"""What a user calls to train: a recipe file in, a model's folder out. Nothing heavy is imported before the files are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from wsigen.training.loop import Outcome

Model = Literal["autoencoder", "denoiser", "grid", "tokens", "mask"]
Say = Callable[[str], None]


class TrainingOptions(TypedDict, total=False):
    """What any training may be given, as described in `train_autoencoder`."""

    resume: bool
    cache: str | Path | None
    skip_bad: bool
    say: Say | None


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
    return _train("autoencoder", recipe, out, resume=resume, cache=cache, skip_bad=skip_bad, say=say)


def train_denoiser(recipe: str | Path, *, out: str | Path, **options: Unpack[TrainingOptions]) -> Outcome:
    """Train a denoiser on your own slides; writes OUT/bundle, which 'wsigen generate --model' takes.

    Parameters and errors are those of `train_autoencoder`.
    """
    return _train("denoiser", recipe, out, **options)


def train_grid(recipe: str | Path, *, out: str | Path, **options: Unpack[TrainingOptions]) -> Outcome:
    """Train the network that draws the grids which a bundle follows; writes OUT/bundle, a copy of it that draws them itself.

    Parameters and errors are those of `train_autoencoder`.
    """
    return _train("grid", recipe, out, **options)


def train_tokens(recipe: str | Path, *, out: str | Path, **options: Unpack[TrainingOptions]) -> Outcome:
    """Train the network that draws the tokens which a bundle is told; writes OUT/bundle, a copy for 'wsigen models tiles'.

    Parameters and errors are those of `train_autoencoder`.
    """
    return _train("tokens", recipe, out, **options)


def train_mask(recipe: str | Path, *, out: str | Path, **options: Unpack[TrainingOptions]) -> Outcome:
    """Train a model that draws layouts of whole slides; writes OUT/mask, which 'wsigen generate --mask-model' takes.

    Parameters and errors are those of `train_autoencoder`.
    """
    return _train("mask", recipe, out, **options)


def _train(
    what: Model,
    recipe: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    say: Say | None = None,
) -> Outcome:
    """Read a recipe, open its dataset and train."""
    from wsigen.dataset.dataset import open_dataset
    from wsigen.training.processes import main_first
    from wsigen.training.recipes import RECIPES, read_recipe

    settings = read_recipe(RECIPES[what], Path(recipe))
    dataset = main_first("the index of the dataset", partial(open_dataset, settings.dataset, cache, skip_bad))
    if say:
        for note in dataset.notes:
            say(f"note: {note}")
    make = _maker(what, say)  # imports torch: what is wrong with the files is said before
    return make(settings, dataset, Path(out), resume=resume)


def _maker(what: Model, say: Say | None) -> Callable[..., Outcome]:
    """The function that trains on an open dataset, ``(recipe, dataset, out, *, resume)``."""
    if what == "autoencoder":
        from wsigen.training.autoencoder_task import make_autoencoder

        return make_autoencoder
    if what == "denoiser":
        from wsigen.training.make_denoiser import make_denoiser

        return make_denoiser
    if what == "grid":
        from wsigen.training.make_grid import make_grid

        return make_grid
    if what == "tokens":
        from wsigen.training.make_tokens import make_tokens

        return make_tokens
    from wsigen.training.mask_task import make_mask

    return partial(make_mask, say=say)
