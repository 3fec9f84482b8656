"""Trains a tiny model: ``python train_tiny.py DIR [--resume]``; a batch takes at least 20 ms."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from streams import LEVELS, TABLE, Crops, Latents, denoiser_settings

from wsigen.training.autoencoder import build_vae
from wsigen.training.autoencoder_task import AutoencoderTask
from wsigen.training.loop import Outcome, train
from wsigen.training.make_denoiser import LatentData, fit_denoiser
from wsigen.training.recipes import AutoencoderNetwork, AutoencoderRecipe, DenoiserRecipe
from wsigen.training.snapshot import identity_of

NETWORK = {"channels": (8, 8, 8, 8), "latent_channels": 4, "norm_groups": 4}


def train_autoencoder(out: Path, resume: bool = False, **loop: Any) -> Outcome:
    given = {"steps": 6, "batch": 2, "learning_rate": 3e-3, "sample_every": 0, "checkpoint_minutes": 0, **loop}
    recipe = AutoencoderRecipe(dataset=Path("none"), crop_px=32, network=NETWORK, loop=given)
    task = AutoencoderTask(recipe, Crops(32))
    return train(task, recipe.loop, out, identity_of(recipe.decisive()), resume=resume)


def make_denoiser(
    out: Path, resume: bool = False, poisoned_step: int | None = None, stream: Any = None, **changes: Any
) -> Outcome:
    recipe = DenoiserRecipe.model_validate(denoiser_settings(**changes))
    torch.manual_seed(0)
    vae = build_vae(AutoencoderNetwork(**NETWORK), 64)
    mean, std = [0.0] * 4, [1.0] * 4
    data = LatentData(stream or Latents(8, 4, poisoned_step), mean, std, TABLE, LEVELS, 8, "data")
    return fit_denoiser(recipe, data, vae, out, resume=resume)


class Slow(Latents):
    def batch(self, step: int, count: int):
        time.sleep(0.02)
        return super().batch(step, count)


if __name__ == "__main__":
    torch.set_num_threads(1)
    entropy = {"enabled": True}
    make_denoiser(
        Path(sys.argv[1]),
        "--resume" in sys.argv,
        stream=Slow(),
        entropy=entropy,
        loop={"steps": 60, "checkpoint_minutes": 0.002},
    )
