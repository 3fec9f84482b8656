"""How well an autoencoder reconstructs images that its training never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wsigen.dataset.crops import CropBatch, Stream
from wsigen.dataset.settings import CELL_PX
from wsigen.training.autoencoder_model import to_bytes, to_unit

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@torch.no_grad()
def measure_autoencoder(
    vae: AutoencoderKL, crops: Stream[CropBatch], background: tuple[int, ...], count: int = 48, batch: int = 4
) -> dict[str, float]:
    """Reconstruct crops and compare them in 8 bit, outside background: empty glass would flatter every figure.

    Parameters
    ----------
    crops:
        Of held-out images, without augmentation.
    background:
        Classes that are left out; unknown cells count as tissue.

    Returns
    -------
    ``psnr_db`` over all pixels of tissue; ``colour_error``, the mean over crops and channels of the absolute difference of
    their mean colours, and ``colour_shift``, the largest channel's mean signed difference, in grey levels of 0-255;
    ``crops``, how many held tissue.
    """
    vae = vae.eval()
    device = next(vae.parameters()).device
    squares, pixels = 0.0, 0
    shifts: list[NDArray[np.float64]] = []
    for step in range(-(-count // batch)):
        given = crops.batch(step, batch)
        made = to_bytes(vae.decode(vae.encode(to_unit(given.images).to(device)).latent_dist.mode()).sample)
        difference = made.astype(np.float64) - given.images
        cells = ~np.isin(given.class_maps, background)
        for one, tissue in zip(difference, np.kron(cells, np.ones((1, CELL_PX, CELL_PX), bool)), strict=True):
            if tissue.mean() >= 0.25:
                inside = one[tissue]
                squares, pixels = squares + float(np.square(inside).sum()), pixels + inside.size
                shifts.append(inside.mean(axis=0))
    if not shifts:
        return {}
    colours = np.stack(shifts)
    return {
        "psnr_db": float(20 * np.log10(255.0) - 10 * np.log10(max(squares / pixels, 1e-10))),
        "colour_error": float(np.abs(colours).mean()),
        "colour_shift": float(np.abs(colours.mean(axis=0)).max()),
        "crops": float(len(shifts)),
    }
