"""The bundle's networks as diffusers loads them, with nothing of wsigen around them: what the peers' loops call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsigen.models.card import BundleCard, read_card


@dataclass(frozen=True)
class Window:
    """A window that was denoised: its share of the step, and the crops that went through the network for it."""

    share: float
    rows: int


class Network:
    """A class-map bundle of wsigen, by diffusers' public API and conditioned as its card says.

    Parameters
    ----------
    folder:
        The bundle.
    steps:
        Transitions of the sampler.

    Attributes
    ----------
    scheduler:
        diffusers' DDIM scheduler with the bundle's settings, set to the timesteps that wsigen takes.
    unknown:
        The label that says nothing: a map full of it is the null condition.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.card: BundleCard = read_card(folder)
        if self.card.conditioning.kind != "class-map":
            raise RuntimeError(f"{folder}: the peers' loops are written for bundles conditioned by class maps")
        self._unet = diffusers.UNet2DModel.from_pretrained(str(folder / "unet"), use_safetensors=True).eval()
        kind = getattr(diffusers, diffusers.AutoencoderKL.load_config(str(folder / "vae"))["_class_name"])
        self._vae = kind.from_pretrained(str(folder / "vae"), use_safetensors=True).eval()
        place, spacing = str(folder / "scheduler"), "trailing"
        self.scheduler: Any = diffusers.DDIMScheduler.from_pretrained(place, timestep_spacing=spacing)
        self.scheduler.set_timesteps(steps)
        self.unknown = len(self.card.classes)

    def start(self, height: int, width: int, seed: int) -> Tensor:
        """Noise ``[1, C, height, width]``."""
        shape = (1, self.card.latent.channels, height, width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def predict(self, latents: Tensor, timestep: int, maps: Tensor) -> Tensor:
        """Call the network on latents ``[B, C, p, p]`` with class maps ``[B, p, p]``."""
        classes = torch.arange(self.unknown + 1)[None, :, None, None]
        sample = torch.cat([latents, (maps[:, None] == classes).to(latents.dtype)], dim=1)
        levels = torch.zeros(len(latents), dtype=torch.long) if self._unet.config.num_class_embeds else None
        output: Tensor = self._unet(sample, timestep, class_labels=levels).sample
        return output

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode a whole canvas ``[1, C, h, w]`` at once, as the peers do; uint8 ``[h f, w f, 3]``."""
        latent = self.card.latent
        mean, std = (torch.tensor(values)[None, :, None, None] for values in (latent.mean, latent.std))
        low, high = latent.image_range
        picture = self._vae.decode(latents * std + mean).sample[0]
        picture = ((picture - low) * (255.0 / (high - low))).clamp(0.0, 255.0).round().to(torch.uint8)
        return np.asarray(picture.permute(1, 2, 0).numpy())
