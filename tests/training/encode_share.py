"""Encodes a dataset as one of the processes of a launch: ``python encode_share.py DATASET.yaml OUT``; prints what came out."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from streams import denoiser_settings
from train_tiny import NETWORK

from wsigen.dataset.dataset import open_dataset
from wsigen.training.autoencoder import build_vae
from wsigen.training.make_denoiser import encoded
from wsigen.training.processes import processes
from wsigen.training.recipes import AutoencoderNetwork, DenoiserRecipe

if __name__ == "__main__":
    torch.set_num_threads(1)
    file, out = (Path(argument) for argument in sys.argv[1:])
    torch.manual_seed(0)
    vae = build_vae(AutoencoderNetwork.model_validate(NETWORK), 64)
    recipe = DenoiserRecipe.model_validate(denoiser_settings(latent_variants=2))
    state = processes()
    data = encoded(recipe, open_dataset(file, out / f"dataset{state.process_index}"), vae, out)
    batch = data.stream.batch(0, 8)
    print(state.num_processes, "processes", hashlib.sha256(batch.latents.tobytes() + data.mean.tobytes()).hexdigest())
