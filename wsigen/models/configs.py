"""The JSON configs of a diffusers folder, read as plain data: no weights, no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsigen.base.errors import BundleError

Config = dict[str, Any]


def read_config(folder: Path, part: str) -> Config:
    """Read the config of ``vae``, ``unet``, ``scheduler`` or ``text_encoder``.

    Raises
    ------
    BundleError
        If the part is missing or its config is not a JSON object.
    """
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    file = folder / part / name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder}: no {part}/{name}; a bundle is a diffusers folder with vae, unet and scheduler") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{file}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise BundleError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def vae_factor(vae: Config) -> int:
    """Image pixels per latent pixel of an autoencoder, from its number of blocks."""
    if vae.get("_class_name") == "AutoencoderTiny":
        blocks = vae.get("decoder_block_out_channels", (64, 64, 64, 64))
        return int(vae.get("upsampling_scaling_factor", 2) ** (len(blocks) - 1))
    return int(2 ** (len(vae.get("block_out_channels", (64,))) - 1))
