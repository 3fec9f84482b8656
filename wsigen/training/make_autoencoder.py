"""``wsigen train autoencoder``: dataset and recipe -> a diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from wsigen.dataset.dataset import Dataset
from wsigen.storage.files import write_atomic
from wsigen.training.autoencoder import measure_autoencoder
from wsigen.training.autoencoder_task import AutoencoderTask
from wsigen.training.loop import Outcome, train
from wsigen.training.processes import is_main
from wsigen.training.publish import save_network, whole_folder
from wsigen.training.recipes import AutoencoderRecipe
from wsigen.training.snapshot import Identity, identity_of, model_key

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FIGURES = "figures.json"
MEASURED_PX = 256


def make_autoencoder(recipe: AutoencoderRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Train on the training split of a dataset; when all steps are done, write ``out/vae``.

    Where the dataset holds images out, their reconstruction is measured and written to ``out/figures.json``. ``out`` also
    gets the checkpoint, the losses and sample grids.
    """
    shares = recipe.level_shares
    stream = dataset.crops("training", recipe.crop_px, recipe.seed, shares, unlabelled_share=recipe.unlabelled_share)
    task = AutoencoderTask(recipe, stream)
    outcome = train(task, recipe.loop, out, identity(recipe, dataset.key), seed=recipe.seed, resume=resume)
    if outcome.result and is_main():
        with whole_folder(outcome.result) as beside:
            save_network(task.vae, beside)
        if len(dataset.split_patches("held_out")):
            write_figures(task.vae, recipe, dataset, out, outcome.step)
    return outcome


def identity(recipe: AutoencoderRecipe, key: str) -> Identity:
    """The settings and data (``key``) that decide the weights; the model it begins at by what it holds."""
    return identity_of(recipe.decisive() | {"start": model_key(recipe.start), "data": key})


def write_figures(vae: AutoencoderKL, recipe: AutoencoderRecipe, dataset: Dataset, out: Path, steps: int) -> dict[str, float]:
    """Measure an autoencoder on the held-out split at the finest level it has, and write ``out/figures.json``."""
    side = min(MEASURED_PX, dataset.settings.patch_px)
    finest = int(dataset.split_patches("held_out").level.min())
    shares = [float(level == finest) for level in range(len(dataset.levels))]
    background = tuple(i for i, tissue in enumerate(dataset.table) if tissue.background)
    figures = measure_autoencoder(vae, dataset.crops("held_out", side, recipe.seed, shares, augment=False), background)
    figures["steps"] = float(steps)
    write_atomic(out / FIGURES, json.dumps(figures, indent=1).encode())
    return figures
