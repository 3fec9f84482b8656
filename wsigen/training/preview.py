"""Sample grids, to look at while training goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsigen.training.denoiser import build_scheduler, predict
from pipelines.her2st.seeds import CLASS_NAMES, GLASS, IMMUNE, STROMA, TUMOR, UNKNOWN
from pipelines.her2st.weak_labels import CLASS_COLOURS

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel


def preview_maps(side: int) -> Tensor:
    """Make one uniform map per class and a mixed one: (6, side, side)."""
    maps = torch.stack([torch.full((side, side), label) for label in range(len(CLASS_NAMES))])
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mixed = torch.full((side, side), TUMOR)
    mixed[(rows - cols).abs() < side // 6] = STROMA
    mixed[(rows - 0.75 * side) ** 2 + (cols - 0.25 * side) ** 2 < (0.2 * side) ** 2] = IMMUNE
    mixed[rows + (side - cols) < side // 2] = GLASS
    return torch.cat([maps, mixed[None]])


@torch.no_grad()
def sample(unet: UNet2DModel, maps: Tensor, level: int, channels: int, *, steps: int, guidance: float, seed: int = 0) -> Tensor:
    """Draw latents for class maps with DDIM; v = (1 + w) v(map) - w v(unknown).

    Parameters
    ----------
    maps : (B, h, w)
    guidance : w; 0 is no guidance

    Returns
    -------
    (B, C, h, w) standardised latents
    """
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    x = torch.randn((len(maps), channels, *maps.shape[1:]), generator=torch.Generator().manual_seed(seed))
    levels = torch.full((len(maps),), level)
    unknown = torch.full_like(maps, UNKNOWN)
    for t in scheduler.timesteps:
        at = torch.full((len(maps),), int(t))
        v = predict(unet, x, at, maps, levels)
        if guidance:
            v = (1.0 + guidance) * v - guidance * predict(unet, x, at, unknown, levels)
        x = scheduler.step(v, t, x).prev_sample
    return x


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, mean: list[float], std: list[float]) -> np.ndarray:
    """Decode standardised latents (B, C, h, w) into (B, 8h, 8w, 3) uint8."""
    z = latents * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = [vae.decode(part.contiguous(memory_format=torch.channels_last)).sample.float() for part in z.split(2)]
    images = (torch.cat(parts) + 1.0) * 127.5
    return images.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def sample_grid(
    unet: UNet2DModel,
    vae: AutoencoderKL,
    mean: list[float],
    std: list[float],
    *,
    steps: int,
    guidance: float,
    side: int = 64,
) -> Image.Image:
    """Draw a grid: a column per map; its rows are the map, level patch and level overview."""
    maps = preview_maps(side)
    rows = [
        np.concatenate(
            [np.kron(np.array(CLASS_COLOURS, np.uint8)[m], np.ones((2, 8, 1), np.uint8)) for m in maps.numpy()],
            axis=1,
        )
    ]
    for level in (0, 1):
        latents = sample(unet, maps, level, len(mean), steps=steps, guidance=guidance, seed=level)
        rows.append(np.concatenate(list(decode(vae, latents, mean, std)), axis=1))
    return Image.fromarray(np.concatenate(rows))
