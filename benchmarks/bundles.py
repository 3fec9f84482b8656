"""Small random bundles and layouts, the same on every machine: what is measured where the model does not matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = [
    {"name": "Glass", "color": [235, 235, 240], "background": True},
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
]
CHANNELS, FACTOR = 4, 8

Square = tuple[str, int, int, int]
"""Class, left and upper edge, side, in slide px."""


def make_bundle(
    folder: Path, widths: tuple[int, ...], decoder_width: int, crop: int = 64, seed: int = 0, levels: int = 1
) -> Path:
    """Save a random class-map bundle of factor 8, without attention; its weights depend on ``seed`` only.

    Parameters
    ----------
    widths:
        Channels of the U-Net's levels (multiples of 4); they decide what a model call costs.
    decoder_width:
        Channels of all levels of the decoder.
    crop:
        Crop side in latent px.
    levels:
        Levels of magnification, each four times coarser than the one before.
    """
    import torch
    from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DModel(
            sample_size=crop,
            in_channels=CHANNELS + len(CLASSES) + 1,
            out_channels=CHANNELS,
            block_out_channels=widths,
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
            layers_per_block=1,
            norm_num_groups=4,
            add_attention=False,
            num_class_embeds=levels,
        ).eval().save_pretrained(folder / "unet")
        AutoencoderTiny(
            encoder_block_out_channels=(decoder_width,) * 4,
            decoder_block_out_channels=(decoder_width,) * 4,
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
            latent_channels=CHANNELS,
        ).eval().save_pretrained(folder / "vae")
    DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    card = {
        "format": 1,
        "name": "benchmark",
        "title": "Random bundle for benchmarks",
        "licence": "CC0-1.0",
        "not_for": "Anything but benchmarks: its weights are random.",
        "training_data": [{"name": "nothing", "url": "https://example.org", "licence": "CC0-1.0", "attribution": "-"}],
        "classes": CLASSES,
        "levels": [{"name": f"level-{k}", "mpp": 0.5 * 4**k} for k in range(levels)],
        "conditioning": {"kind": "class-map"},
        "latent": {
            "channels": CHANNELS,
            "factor": FACTOR,
            "mean": [0.0] * CHANNELS,
            "std": [1.0] * CHANNELS,
            "image_range": [-1.0, 1.0],
        },
        "crop_latent": crop,
        "guidance": 0.5,
        "steps": 4,
        "glass_rgb": [235, 235, 240],
    }
    (folder / "wsigen.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return folder


def tissues(model: str | Path) -> list[str]:
    """Classes of a bundle (a folder, a name), but for its background."""
    from wsigen.models.bundle import check_bundle, find_bundle

    return [c.name for c in check_bundle(find_bundle(str(model))).table if not c.background]


def one_class(model: str | Path, size: int, **more: Any) -> dict[str, Any]:
    """Settings of ``wsigen.generate``: ``size`` px a side, all of one tissue, one worker of one thread; ``more`` go before."""
    made = {"model": str(model), "size": (size, size), "class_name": tissues(model)[0], "levels": 1}
    return {**made, "workers": 1, "threads": 1, "overwrite": True, **more}


def write_squares(path: Path, squares: list[Square]) -> Path:
    """Write a GeoJSON layout of squares."""
    return write_polygons(
        path, [(name, [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]) for name, x, y, side in squares]
    )


def write_polygons(path: Path, polygons: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> Path:
    """Write a GeoJSON layout: the class of every polygon and its corners, slide px, the first not repeated."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, corners in polygons
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


SECTIONS = ((0.27, 0.27), (0.72, 0.40), (0.36, 0.74))
"""Centres (x, y) of three ragged sections that cover a third of a square slide, over its side; the rest is glass."""


def section_radius(number: int, turn: Any) -> Any:
    """From a section's centre to its edge, over the slide's side, at angles (radians)."""
    waves = 0.14 * np.sin(2 * turn + number) + 0.08 * np.sin(5 * turn + 2 * number) + 0.04 * np.sin(11 * turn)
    return 0.185 * (1 + waves)


def write_sections(path: Path, side: int, name: str) -> Path:
    """Write a GeoJSON layout of `SECTIONS` on a slide of ``side`` px."""
    turn = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    polygons = []
    for number, (x, y) in enumerate(SECTIONS):
        radius = section_radius(number, turn)
        ring = side * np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)
        polygons.append((name, ring.round(1).tolist()))
    return write_polygons(path, polygons)
