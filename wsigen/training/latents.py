"""Sections as cached latents with their class maps, and random crops of those for the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.her2st.seeds import GLASS, IMMUNE, OTHER, STROMA, TUMOR, UNKNOWN, Labels
from pipelines.her2st.tissue import F32, U8

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

F16 = NDArray[np.float16]

CENTRE_SHARES = {
    GLASS: 0.12,
    TUMOR: 0.26,
    STROMA: 0.24,
    IMMUNE: 0.24,
    OTHER: 0.14,
}  # what a crop is centred on


@dataclass(frozen=True)
class LatentImage:
    """One encoded view of a section.

    Attributes
    ----------
    latents : (C, h, w) float16, not standardised
    labels : (h, w) class indices
    level : 0 = patch, 1 = overview
    """

    latents: F16
    labels: Labels
    level: int

    def save(self, path: Path) -> None:
        """Write as one ``.npz``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, latents=self.latents, labels=self.labels, level=self.level)

    @staticmethod
    def load(path: Path) -> LatentImage:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return LatentImage(stored["latents"], stored["labels"], int(stored["level"]))

    def centres(self) -> dict[int, NDArray[np.int64]]:
        """List the places (n, 2) of every class that occurs."""
        found = {label: np.argwhere(self.labels == label) for label in CENTRE_SHARES}
        return {label: places for label, places in found.items() if len(places)}


@torch.no_grad()
def encode(model: AutoencoderKL, rgb: U8, tile_px: int = 512, margin_px: int = 32) -> F16:
    """Encode an image tile by tile; a margin around every tile hides its border.

    Parameters
    ----------
    rgb : (H, W, 3); H and W are multiples of 8

    Returns
    -------
    (C, H/8, W/8) posterior means
    """
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((margin_px, margin_px + tile_px), (margin_px, margin_px + tile_px), (0, 0)), mode="edge")
    latents = np.zeros((model.config["latent_channels"], -(-height // 8), -(-width // 8)), dtype=np.float16)
    side, margin = tile_px + 2 * margin_px, margin_px // 8
    empty: F32 | None = None
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            tile = padded[top : top + side, left : left + side]
            blank = bool((tile == tile[0, 0]).all())
            if not blank or empty is None:
                coded = _encode_tile(model, tile)[:, margin:-margin, margin:-margin]
                empty = coded if blank else empty
            else:
                coded = empty
            target = latents[:, top // 8 : (top + tile_px) // 8, left // 8 : (left + tile_px) // 8]
            target[...] = coded[:, : target.shape[1], : target.shape[2]]
    return latents


def _encode_tile(model: AutoencoderKL, tile: U8) -> F32:
    x = torch.from_numpy(tile.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean = model.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
    return np.asarray(mean[0].float().numpy(), dtype=np.float32)


def channel_statistics(images: Sequence[LatentImage]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every channel over the tissue of all images."""
    tissue = np.concatenate([i.latents[:, i.labels != GLASS].astype(np.float32)[:, ::7] for i in images], axis=1)
    return [round(float(v), 5) for v in tissue.mean(axis=1)], [round(float(v), 5) for v in tissue.std(axis=1)]


class LatentCrops:
    """Random crops of standardised latents with their class maps; a batch depends on (seed, step) alone."""

    def __init__(self, images: Sequence[LatentImage], mean: Sequence[float], std: Sequence[float]) -> None:
        self._levels = [[i for i in images if i.level == level] for level in (0, 1)]
        self._centres = [[i.centres() for i in level] for level in self._levels]
        self._mean = np.asarray(mean, dtype=np.float32)[:, None, None]
        self._std = np.asarray(std, dtype=np.float32)[:, None, None]

    def _one(self, level: int, side: int, rng: np.random.Generator) -> tuple[F32, Labels]:
        index = int(rng.integers(len(self._levels[level])))
        image, centres = self._levels[level][index], self._centres[level][index]
        shares = np.array([CENTRE_SHARES[label] for label in centres])
        label = list(centres)[rng.choice(len(shares), p=shares / shares.sum())]
        shift = rng.integers(-side // 4, side // 4 + 1, size=2)
        top, left = centres[label][rng.integers(len(centres[label]))] - side // 2 + shift
        top = int(np.clip(top, 0, image.labels.shape[0] - side))
        left = int(np.clip(left, 0, image.labels.shape[1] - side))
        box = (slice(top, top + side), slice(left, left + side))
        latents = (image.latents[(slice(None), *box)].astype(np.float32) - self._mean) / self._std
        return latents, image.labels[box]

    def batch(
        self, side: int, count: int, overview_share: float, dropout: float, seed: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw crops of both levels.

        Returns
        -------
        latents : (count, C, side, side) standardised
        labels : (count, side, side) int64; a share ``dropout`` of the maps is wholly unknown
        levels : (count,) int64
        """
        rng = np.random.default_rng(seed)
        levels = (rng.random(count) < overview_share).astype(np.int64)
        drawn = [self._one(int(level), side, rng) for level in levels]
        labels = np.stack([label for _, label in drawn]).astype(np.int64)
        labels[rng.random(count) < dropout] = UNKNOWN
        return (
            torch.from_numpy(np.stack([x for x, _ in drawn])),
            torch.from_numpy(labels),
            torch.from_numpy(levels),
        )
