"""Small synthetic streams: stripes and blobs whose look follows from class and level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.dataset.crops import CropBatch
from wsigen.dataset.latents import LatentBatch
from wsigen.models.card import BundleCard, Level, make_card

TABLE = ClassTable((TissueClass("Glass", (235, 235, 240), True), TissueClass("Tumor", (200, 0, 0))))
LEVELS = (Level(name="patch", mpp=0.5), Level(name="overview", mpp=2.0))
COLOURS = np.array([[235, 235, 240], [180, 60, 140]], dtype=np.float32)
WORDS = {"name": "tiny", "title": "A tiny model", "licence": "CC0-1.0", "not_for": "anything but tests", "steps": 4}


def card_of_kind(kind: str, classes: Sequence[str] = "AB", mpps: Sequence[float] = (0.5, 2.0)) -> BundleCard:
    """A card of four latent channels."""
    content = {
        **{k: v for k, v in WORDS.items() if k != "steps"},
        "format": 1,
        "classes": [{"name": name, "color": (10, 20, 30)} for name in classes],
        "levels": [{"name": f"level {i}", "mpp": mpp} for i, mpp in enumerate(mpps)],
        "conditioning": {"kind": kind},
        "latent": {"channels": 4, "factor": 8},
        "crop_latent": 8,
    }
    return make_card(content, "test")


def class_maps(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    maps = np.repeat(rng.integers(0, 2, (count, 1, 1)), side, axis=1).repeat(side, axis=2).astype(np.uint8)
    maps[:, : side // 4] = UNKNOWN
    return maps


class Crops:
    def __init__(self, side_px: int, seed: int = 0) -> None:
        self.side_px, self.seed = side_px, seed

    def batch(self, step: int, count: int) -> CropBatch:
        rng = np.random.default_rng((self.seed, step))
        maps = class_maps(rng, count, self.side_px // 8)
        images = COLOURS[np.where(maps == UNKNOWN, 0, maps)].repeat(8, axis=1).repeat(8, axis=2)
        images = images + 10 * np.sin(np.arange(self.side_px) / 3)[None, None, :, None]
        return CropBatch(images.clip(0, 255).astype(np.uint8), maps, rng.integers(0, 2, count), np.ones(count, dtype=bool))


class Latents:
    def __init__(self, side: int = 8, channels: int = 4, poisoned_step: int | None = None) -> None:
        self.side, self.channels, self.poisoned_step = side, channels, poisoned_step

    def batch(self, step: int, count: int) -> LatentBatch:
        rng = np.random.default_rng((7, step))
        maps = class_maps(rng, count, self.side)
        latents = np.where(maps == 1, 1.0, -1.0)[:, None].repeat(self.channels, axis=1).astype(np.float32)
        latents += 0.1 * rng.standard_normal(latents.shape, dtype=np.float32)
        if step == self.poisoned_step:
            latents[0, 0, 0, 0] = np.nan
        labelled = rng.random(count) < 0.7
        maps[~labelled] = UNKNOWN
        return LatentBatch(latents, maps, rng.integers(0, 2, count), labelled)


def denoiser_settings(**changes: object) -> dict[str, object]:
    loop = {"steps": 6, "batch": 4, "learning_rate": 2e-3, "schedule": "cosine", "sample_every": 0, "checkpoint_minutes": 0}
    given = {
        "dataset": Path("none.yaml"),
        "autoencoder": Path("none"),
        "network": {"channels": (8, 16), "layers": 1, "norm_groups": 4, "head_dim": 8},
        "bundle": WORDS,
    }
    loop.update(changes.pop("loop", {}))  # type: ignore[call-overload]
    return {**given, **changes, "loop": loop}
