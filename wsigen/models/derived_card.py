"""A card for a diffusers folder that has none, e.g. Stable Diffusion's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsigen.models.card import BundleCard, make_card
from wsigen.models.configs import Config, read_config, vae_factor


def card_from_diffusers(folder: Path) -> BundleCard:
    """Derive what can be known from ``vae``, ``unet`` and ``scheduler``.

    diffusers standardises by ``z = (encode(x) - shift_factor) * scaling_factor``. The um/px is unknown
    (null), the classes are Glass and Tissue.

    Raises
    ------
    BundleError
        If the folder is not in diffusers' format.
    """
    vae, unet = read_config(folder, "vae"), read_config(folder, "unet")
    read_config(folder, "scheduler")
    text = (folder / "text_encoder" / "config.json").is_file()
    content: dict[str, Any] = {
        "format": 1,
        "name": folder.name or "bundle",
        "title": f"Model without a card ({folder.name})",
        "licence": "unknown",
        "not_for": "Nothing is known about this model: it has no wsigen.yaml.",
        "classes": [
            {"name": "Glass", "color": [235, 235, 240], "background": True},
            {"name": "Tissue", "color": [200, 100, 160]},
        ],
        "levels": [{"name": "patch", "mpp": None}],
        "conditioning": {"kind": _kind(unet, text)},
        "latent": _latent(vae),
        "crop_latent": _crop(unet),
    }
    return make_card(content, f"{folder} (card derived from its configs)")


def _kind(unet: Config, text: bool) -> str:
    if text:
        return "text"
    return "class-tokens" if unet.get("num_class_embeds") else "none"


def _latent(vae: Config) -> dict[str, Any]:
    # AutoencoderKL's own defaults are Stable Diffusion's; a Tiny one's latents are standardised already.
    default_scale = 1.0 if vae.get("_class_name") == "AutoencoderTiny" else 0.18215
    return {
        "channels": vae.get("latent_channels", 4),
        "factor": vae_factor(vae),
        "mean": vae.get("shift_factor") or 0.0,
        "std": 1.0 / (vae.get("scaling_factor") or default_scale),
    }


def _crop(unet: Config) -> int:
    side = unet.get("sample_size") or 64
    return int(min(side) if isinstance(side, (list, tuple)) else side)
