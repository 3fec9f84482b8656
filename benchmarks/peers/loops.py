"""Two loops as wsigen's peers write them, on networks as diffusers loads them, with nothing of wsigen around.

Panorama: MultiDiffusion as diffusers' pipeline does it: a window every few latent pixels, each denoised and stepped on its
own, two rows a call under guidance (its ``view_batch_size`` is 1 by default); every pixel takes the mean over its windows.

OneCrop: random patches as DiffInfinite describes them (algorithm 1): in every step crops are drawn around pixels that no crop
has covered yet, until all are; a pixel belongs to its first crop. A crop is predicted once per label in it and once under the
null condition, each in a call of its own, and every pixel takes its own label's prediction.

Both keep the whole canvas as one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsigen.base.geometry import Box
from wsigen.models.card import BundleCard, read_card

STRIDE = 8
"""Latent px between the panorama's windows, which are of the network's own side: the pipeline's default."""


@dataclass(frozen=True)
class Window:
    """A window that was denoised: its share of the step, and the crops that went through the network for it."""

    share: float
    rows: int


class Network:
    """A class-map bundle of wsigen, by diffusers' public API and conditioned as its card says.

    ``scheduler`` is diffusers' DDIM scheduler with the bundle's settings, set to the timesteps that wsigen takes; ``unknown``
    the label that says nothing: a map full of it is the null condition.
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


class Loop:
    """A loop over one canvas.

    Parameters
    ----------
    network, latents, classes : the networks; noise ``[1, C, H, W]``, which becomes the canvas; the class map ``[H, W]``
    guidance : w of ``(1 + w) eps(c) - w eps(null)``
    seed : of the crops' places

    Attributes
    ----------
    crops : of the last step, latent px
    """

    def __init__(self, network: Network, latents: Tensor, classes: Tensor, guidance: float, seed: int = 0) -> None:
        self.network, self.latents, self.classes, self.guidance = network, latents, classes, guidance
        self.crops: list[Box] = []
        self._chance = np.random.default_rng(seed)

    def run(self) -> Iterator[Window]:
        """Denoise, window by window."""
        raise NotImplementedError

    def _step(self, own: Tensor, free: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        """A crop after one step of the scheduler, guided."""
        guided = (1 + self.guidance) * own - self.guidance * free
        stepped: Tensor = self.network.scheduler.step(guided, timestep, latents).prev_sample
        return stepped


class Panorama(Loop):
    """MultiDiffusion."""

    def run(self) -> Iterator[Window]:
        """Denoise, window by window."""
        side, (height, width) = self.network.card.crop_latent, self.latents.shape[2:]
        corners = [(y, x) for y in range(0, height - side + 1, STRIDE) for x in range(0, width - side + 1, STRIDE)]
        self.crops = [Box(y, x, y + side, x + side) for y, x in corners]
        for timestep in self.network.scheduler.timesteps:
            total, count = torch.zeros_like(self.latents), torch.zeros_like(self.latents)
            for crop in self.crops:
                inner, classes = (slice(None), slice(None), *crop.slices), self.classes[crop.slices]
                maps = torch.stack([classes, torch.full_like(classes, self.network.unknown)])
                own, free = self.network.predict(self.latents[inner].repeat(2, 1, 1, 1), int(timestep), maps)
                total[inner] += self._step(own[None], free[None], timestep, self.latents[inner])
                count[inner] += 1
                yield Window(1 / len(self.crops), 2)
            self.latents = torch.where(count > 0, total / count, total)


class OneCrop(Loop):
    """Random patches."""

    def run(self) -> Iterator[Window]:
        """Denoise, crop by crop."""
        for timestep in self.network.scheduler.timesteps:
            self.crops = self._draw()
            following = self.latents.clone()
            covered = torch.zeros(self.latents.shape[2:], dtype=torch.bool)
            for crop in self.crops:
                classes, inner = self.classes[crop.slices], (slice(None), slice(None), *crop.slices)
                stepped, rows = self._stepped(self.latents[inner], timestep, classes)
                following[inner] = torch.where(covered[crop.slices], following[inner], stepped)
                covered[crop.slices] = True
                yield Window(1 / len(self.crops), rows)
            self.latents = following

    def _draw(self) -> list[Box]:
        """Crops around uncovered pixels, moved inside the canvas, until every pixel is covered."""
        side = self.network.card.crop_latent
        height, width = self.latents.shape[2:]
        free = np.ones((height, width), dtype=bool)
        crops = []
        while free.any():
            place = self._chance.choice(np.flatnonzero(free))
            y, x = (
                min(max(int(c) - side // 2, 0), n - side) for c, n in zip(divmod(place, width), (height, width), strict=True)
            )
            crops.append(Box(y, x, y + side, x + side))
            free[crops[-1].slices] = False
        return crops

    def _stepped(self, latents: Tensor, timestep: Tensor, classes: Tensor) -> tuple[Tensor, int]:
        """A crop after one step of the scheduler, and how often the network was called."""
        own = torch.zeros_like(latents)
        labels = torch.unique(classes)
        for label in labels:
            found = self.network.predict(latents, int(timestep), torch.full_like(classes, int(label))[None])
            own = torch.where(classes == label, found, own)
        free = self.network.predict(latents, int(timestep), torch.full_like(classes, self.network.unknown)[None])
        return self._step(own, free, timestep, latents), len(labels) + 1
