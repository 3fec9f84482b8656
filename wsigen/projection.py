"""What a run will need, from its manifest: the numbers that are compared with the machine before work starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wsigen.cgroup import memory_left
from wsigen.config import RunConfig
from wsigen.engine.memory import ModelSize, Projection, project
from wsigen.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.manifest import Manifest
from wsigen.models.card import BundleCard
from wsigen.sampling.multiscale import PassPlan
from wsigen.slide.pyramid import PyramidSpec
from wsigen.tasks.decode import WINDOW

DECODE_HALO = 16
"""Largest halo of a decoded window, latent px."""

SAMPLE_SIDE = 256
"""Cells per side of the coarse class map from which the share of tissue is read."""


def project_run(manifest: Manifest, card: BundleCard, layout: Layout) -> Projection:
    """Project memory and disk of a prepared run."""
    return project(
        plans_of(manifest),
        card.latent.channels,
        int(manifest.sampling["batch"]),
        model_size(Path(manifest.model)),
        PyramidSpec(**manifest.slide),
        tissue_share(layout, manifest.glass["index"]),
        WINDOW,
    )


def plans_of(manifest: Manifest) -> list[PassPlan]:
    """The passes of a manifest without their schedules."""
    return [PassPlan(**{k: v for k, v in fields.items() if k not in {"timesteps", "abar"}}) for fields in manifest.passes]


def tissue_share(layout: Layout, glass: int | None) -> float:
    """Share of the slide that is not glass, from a coarse class map."""
    if glass is None:
        return 1.0
    cell = max(1, -(-max(layout.height, layout.width) // SAMPLE_SIDE))
    box = Box(0, 0, -(-layout.height // cell), -(-layout.width // cell))
    return float(np.mean(layout.class_map(box, cell) != glass))


def allowed_memory(config: RunConfig) -> int:
    """Bytes all local workers may use: as set, or what this machine and this process's control groups have left."""
    import psutil

    if config.memory_gb:
        return int(config.memory_gb * 2**30)
    machine, group = int(psutil.virtual_memory().available), memory_left()
    return machine if group is None else min(machine, group)


def model_size(folder: Path) -> ModelSize:
    """Weights in bytes once loaded as float32, and the widths that decide the activations."""
    weights = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
    unet = _widths(folder / "unet" / "config.json", "block_out_channels")
    decoder = _widths(folder / "vae" / "config.json", "block_out_channels", "decoder_block_out_channels")
    return ModelSize(2 * weights, unet[0], decoder[0], DECODE_HALO)


def _widths(path: Path, *keys: str) -> list[int]:
    content = json.loads(path.read_text())
    return next((list(content[key]) for key in keys if content.get(key)), [64])
