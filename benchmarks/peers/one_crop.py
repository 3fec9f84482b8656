"""Random patches as DiffInfinite describes them (algorithm 1), one crop and one label at a time.

In every step crops are drawn around pixels that no crop has covered yet, until all are covered; a pixel belongs to its first
crop. A crop is predicted once per label in it and once under the null condition, each time in a call of its own, and every
pixel takes its own label's prediction. The canvas is one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.network import Network, Window
from wsigen.base.geometry import Box


class OneCrop:
    """The loop over one canvas.

    Parameters
    ----------
    network, latents, classes:
        The networks; noise ``[1, C, H, W]``; the class map ``[H, W]``.
    guidance:
        w of ``(1 + w) eps(c) - w eps(null)``.
    seed:
        Of the crops' places.

    Attributes
    ----------
    latents:
        The canvas, after every step that was finished.
    crops:
        The crops of the last step, latent px.
    """

    def __init__(self, network: Network, latents: Tensor, classes: Tensor, guidance: float, seed: int) -> None:
        self.network, self.latents, self.classes, self.guidance = network, latents, classes, guidance
        self._chance = np.random.default_rng(seed)
        self.crops: list[Box] = []

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
        guided = (1 + self.guidance) * own - self.guidance * free
        return self.network.scheduler.step(guided, timestep, latents).prev_sample, len(labels) + 1
