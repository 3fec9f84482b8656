"""What a run will need, from its manifest: the numbers that are compared with the machine before work starts."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

from wsigen.base.geometry import Box
from wsigen.base.machine import memory_left
from wsigen.layout.layout import Layout
from wsigen.models.autoencoder import PIECE
from wsigen.models.card import BundleCard, read_config
from wsigen.models.halo import attention_of, last_halo
from wsigen.run.config import RunConfig
from wsigen.run.estimate.memory import ModelSize, Projection, project
from wsigen.run.manifest import Manifest
from wsigen.run.tasks.decode import WINDOW
from wsigen.run.tasks.guide import ENCODE_HALO, ENCODE_WINDOW
from wsigen.sampling.passes import PassPlan
from wsigen.slide.pyramid import PyramidSpec

LOADED = ("unet", "vae", "text_encoder")
"""Parts of a bundle that stay in memory."""

SAMPLE_SIDE = 256
"""Cells per side of the coarse class map from which the share of tissue is read."""


def project_run(manifest: Manifest, card: BundleCard, layout: Layout) -> Projection:
    """Project memory and disk of a prepared run."""
    folder = Path(manifest.model)
    in_pieces = manifest.device == "cpu" and attention_of(read_config(folder, "vae")) == "none"
    return project(
        plans_of(manifest),
        card.latent.channels,
        int(manifest.sampling["batch"]),
        model_size(folder),
        PyramidSpec(**manifest.slide),
        tissue_share(layout, manifest.glass["index"]),
        PIECE if in_pieces else WINDOW,
        ENCODE_WINDOW + 2 * ENCODE_HALO,
    )


def plans_of(manifest: Manifest) -> list[PassPlan]:
    """The passes of a manifest, coarse to fine."""
    return [PassPlan.from_json(values) for values in manifest.passes]


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
    weights = 4 * sum(_parameters(path) for part in LOADED for path in (folder / part).glob("*.safetensors"))
    unet = _widths(folder / "unet" / "config.json", "block_out_channels")
    decoder = _widths(folder / "vae" / "config.json", "block_out_channels", "decoder_block_out_channels")
    vae = read_config(folder, "vae")
    attention = attention_of(vae)
    halo = 0 if attention == "more" else last_halo(vae)  # cut off on the way to where most memory is taken
    features = 4 * decoder[-1] if attention == "middle" else 0
    encoder = _widths(folder / "vae" / "config.json", "block_out_channels", "encoder_block_out_channels")
    norms = vae.get("_class_name") != "AutoencoderTiny"
    return ModelSize(weights, unet[0], decoder[0], halo, features, encoder[0], norms)


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, whatever their type: its header is JSON with the shape of each tensor."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _widths(path: Path, *keys: str) -> list[int]:
    content = json.loads(path.read_text())
    return next((list(content[key]) for key in keys if content.get(key)), [64])
