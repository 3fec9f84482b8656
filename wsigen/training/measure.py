"""How well the autoencoder reconstructs a section it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from wsigen.training.crops import crop_source, random_crop
from pipelines.her2st.sections import Section

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def measure_autoencoder(
    model: AutoencoderKL, section: Section, folder: Path, step: int, side_px: int = 256, count: int = 24
) -> dict[str, float]:
    """Reconstruct fixed crops of a section; write the figures and a picture of pairs.

    Returns
    -------
    ``psnr_db`` over all crops, ``colour_error`` (mean over crops and channels of the absolute difference
    of mean colour) and ``colour_shift`` (the largest channel's mean signed difference), in grey levels
    """
    rng = np.random.default_rng(1)
    source = crop_source(section)
    crops = np.stack([random_crop(source, side_px, rng, anywhere=0.0) for _ in range(count)]).astype(np.float32)
    x = torch.from_numpy(crops.transpose(0, 3, 1, 2) / 127.5 - 1.0)
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        parts = [model.decode(model.encode(part).latent_dist.mode()).sample.float() for part in x.split(4)]
    model.train()
    images = ((torch.cat(parts).numpy().transpose(0, 2, 3, 1) + 1.0) * 127.5).clip(0, 255)
    difference = images - crops
    figures = {
        "step": float(step),
        "psnr_db": float(20 * np.log10(255.0) - 10 * np.log10(np.mean(difference**2))),
        "colour_error": float(np.abs(difference.mean(axis=(1, 2))).mean()),
        "colour_shift": float(np.abs(difference.mean(axis=(0, 1, 2))).max()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    rows = [np.concatenate(list(stack[:4]), axis=1) for stack in (crops, images)]
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(folder / f"pairs-{step:06d}.png")
    print("autoencoder", figures, flush=True)
    return figures
