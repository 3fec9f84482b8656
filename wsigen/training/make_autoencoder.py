"""``wsigen train autoencoder``: dataset and recipe -> a diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsigen.storage.files import atomic_path
from wsigen.training.autoencoder_model import AutoencoderTask
from wsigen.training.loop import Outcome, train
from wsigen.training.measure import measure_autoencoder
from wsigen.training.model_key import model_key
from wsigen.training.processes import is_main
from wsigen.training.publish import save_autoencoder
from wsigen.training.recipes import AutoencoderRecipe
from wsigen.training.snapshot import Identity, identity_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FIGURES = "figures.json"
MEASURED_PX = 256


def make_autoencoder(recipe: AutoencoderRecipe, dataset: Any, out: Path, *, resume: bool = False) -> Outcome:
    """Train on the training split of an opened dataset; when all steps are done, write ``out/vae``.

    Where the dataset holds images out, their reconstruction is measured and written to ``out/figures.json``.

    Parameters
    ----------
    dataset:
        What ``wsigen.dataset.open_dataset`` returns.
    out:
        Gets the checkpoint, the losses, sample grids and the result.
    """
    stream = dataset.crops(
        "training", recipe.crop_px, recipe.seed, recipe.level_shares, unlabelled_share=recipe.unlabelled_share
    )
    task = AutoencoderTask(recipe, stream)
    outcome = train(task, recipe.loop, out, identity(recipe, dataset), seed=recipe.seed, resume=resume)
    if outcome.finished and is_main():
        save_autoencoder(task.vae, out / "vae")
        if len(dataset.split_patches("held_out")):
            write_figures(task.vae, recipe, dataset, out, outcome.step)
    return outcome


def identity(recipe: AutoencoderRecipe, dataset: Any) -> Identity:
    """The settings and data that decide the weights; the model it begins at by what it holds."""
    settings = recipe.model_dump(mode="json", exclude={"loop", "dataset"}) | {"start": model_key(recipe.start)}
    return identity_of(settings | {"loop": recipe.loop.identity(), "data": str(getattr(dataset, "key", ""))})


def write_figures(vae: AutoencoderKL, recipe: AutoencoderRecipe, dataset: Any, out: Path, steps: int) -> dict[str, float]:
    """Measure an autoencoder on the held-out split at the finest level it has, and write ``out/figures.json``."""
    side = min(MEASURED_PX, dataset.settings.patch_px)
    finest = int(dataset.split_patches("held_out").level.min())
    shares = tuple(float(level == finest) for level in range(len(dataset.levels)))
    background = tuple(i for i, tissue in enumerate(dataset.table) if tissue.background)
    figures = measure_autoencoder(
        vae, dataset.crops("held_out", side, recipe.seed, shares, unlabelled_share=None, augment=False), background
    )
    figures["steps"] = float(steps)
    with atomic_path(out / FIGURES) as beside:
        beside.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures
