"""Single crops by DDIM with guidance, to look at while training goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsigen.base.classes import UNKNOWN
from wsigen.training.conditions import Conditioner

if TYPE_CHECKING:
    from diffusers import DDIMScheduler


@torch.no_grad()
def draw_samples(
    unet: nn.Module,
    scheduler: DDIMScheduler,
    conditioner: Conditioner,
    class_maps: Tensor,
    levels: Tensor,
    *,
    steps: int,
    guidance: float,
    eta: float,
    seed: int,
) -> Tensor:
    """Draw latents for class maps; out = (1 + w) out(map) - w out(unknown).

    Parameters
    ----------
    class_maps : (B, p, p) uint8
    levels : (B,)
    guidance : w; 0 is no guidance
    eta : noise of each step, 0 .. 1

    Returns
    -------
    (B, C, p, p) standardised latents
    """
    config: Any = unet.config
    sampler = type(scheduler).from_config(scheduler.config)
    sampler.set_timesteps(steps)
    shape = (len(class_maps), int(config["out_channels"]), *class_maps.shape[1:])
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=source).to(class_maps.device)
    unknown = torch.full_like(class_maps, UNKNOWN)

    def predict(maps: Tensor, t: Tensor) -> Tensor:
        sample, extra = conditioner(x, maps, levels)
        found: Tensor = unet(sample, t.to(x.device).expand(len(x)), return_dict=False, **extra)[0]
        return found.float()

    for t in sampler.timesteps:
        out = predict(class_maps, t)
        if guidance:
            out = (1.0 + guidance) * out - guidance * predict(unknown, t)
        noise = torch.randn(shape, generator=source).to(x.device) if eta else None
        x = sampler.step(out, t, x, eta=eta, variance_noise=noise).prev_sample
    return x
