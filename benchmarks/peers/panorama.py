"""MultiDiffusion as diffusers' panorama pipeline does it: the whole canvas in memory, a window every few latent pixels.

In every step each window is denoised and stepped on its own, two rows a call under guidance (the pipeline's
``view_batch_size`` is 1 by default), and every pixel takes the mean over its windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.peers.network import Network, Window

STRIDE = 8
"""Latent px: the pipeline's default. Its windows are of the network's own side, 64 latent px for most."""


class Panorama:
    """The loop over one canvas.

    Parameters
    ----------
    network, latents, classes:
        The networks; noise ``[1, C, H, W]``; the class map ``[H, W]``.
    guidance:
        w of ``(1 + w) eps(c) - w eps(null)``.

    Attributes
    ----------
    latents:
        The canvas, after every step that was finished.
    side:
        Of a window, latent px.
    """

    def __init__(self, network: Network, latents: Tensor, classes: Tensor, guidance: float) -> None:
        self.network, self.latents, self.classes, self.guidance = network, latents, classes, guidance
        self.side = network.card.crop_latent

    def run(self) -> Iterator[Window]:
        """Denoise, window by window."""
        corners, side = self.corners(), self.side
        for timestep in self.network.scheduler.timesteps:
            total, count = torch.zeros_like(self.latents), torch.zeros_like(self.latents)
            for y, x in corners:
                box = (slice(None), slice(None), slice(y, y + side), slice(x, x + side))
                total[box] += self._stepped(self.latents[box], timestep, self.classes[box[2:]])
                count[box] += 1
                yield Window(1 / len(corners), 2)
            self.latents = torch.where(count > 0, total / count, total)

    def corners(self) -> list[tuple[int, int]]:
        """Upper left corners of all windows."""
        height, width = self.latents.shape[2:]
        ys, xs = (range(0, extent - self.side + 1, STRIDE) for extent in (height, width))
        return [(y, x) for y in ys for x in xs]

    def _stepped(self, latents: Tensor, timestep: Tensor, classes: Tensor) -> Tensor:
        """A window after one step of the scheduler."""
        null = torch.full_like(classes, self.network.unknown)
        own, free = self.network.predict(latents.repeat(2, 1, 1, 1), int(timestep), torch.stack([classes, null]))
        guided = (1 + self.guidance) * own - self.guidance * free
        stepped: Tensor = self.network.scheduler.step(guided[None], timestep, latents).prev_sample
        return stepped
