"""What the configs of a diffusers folder say that has no card: Stable Diffusion's, for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsigen.base.errors import BundleError
from wsigen.models.denoisers import Architecture, read_architecture
from wsigen.models.network_config import Config, read_config


def vae_factor(vae: Config) -> int:
    """Image pixels per latent pixel of an autoencoder, from its number of blocks."""
    if vae.get("_class_name") == "AutoencoderTiny":
        blocks = vae.get("decoder_block_out_channels") or (64, 64, 64, 64)
        return int(vae.get("upsampling_scaling_factor", 2) ** (len(blocks) - 1))
    return int(2 ** (len(vae.get("block_out_channels") or (64,)) - 1))


def vae_channels(vae: Config) -> int:
    """Channels of an autoencoder's latents: a ``VQModel``'s have as many as its codes."""
    quantised = vae.get("_class_name") == "VQModel"
    channels = vae.get("latent_channels", 3 if quantised else 4)
    return int(vae.get("vq_embed_dim") or channels if quantised else channels)


def card_command(folder: Path) -> str:
    """The command that writes a card for a folder which has none."""
    return f"'wsigen models card {folder}'"


def derived_content(folder: Path) -> dict[str, Any]:
    """What a card holds of a folder that has none, e.g. Stable Diffusion's, by its configs (BundleError if they are wrong).

    The um/px is unknown (null); the classes are Glass and Tissue.
    """
    vae, (_, network) = read_config(folder, "vae"), read_architecture(folder)
    read_config(folder, "scheduler")
    text = (folder / "text_encoder" / "config.json").is_file()
    return {
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
        "conditioning": {"kind": _kind(network, text)},
        "latent": _latent(folder, vae),
        "crop_latent": network.side,
    }


def _kind(network: Architecture, text: bool) -> str:
    if text:
        return "text"
    return "class-tokens" if network.embeds else "none"


def _latent(folder: Path, vae: Config) -> dict[str, Any]:
    try:
        mean, std = latent_scale(vae)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None
    return {"channels": vae_channels(vae), "factor": vae_factor(vae), "mean": mean, "std": std}


def latent_scale(vae: Config) -> tuple[list[float], list[float]]:
    """Mean and deviation of each latent channel, by the config of an autoencoder, as diffusers' pipelines combine them.

    ``z = (encode(x) - shift_factor) * scaling_factor`` (Stable Diffusion 1 to 3); with ``latents_mean`` and ``latents_std``
    ``z = (encode(x) - latents_mean) * scaling_factor / latents_std`` (Stable Diffusion XL).

    Raises
    ------
    BundleError
        If it says only one of the two, or a shift besides, or not one value a channel.
    """
    # AutoencoderKL's own defaults are Stable Diffusion's; a Tiny one's latents are standardised already.
    scale = vae.get("scaling_factor") or (1.0 if vae.get("_class_name") == "AutoencoderTiny" else 0.18215)
    shift, channels = vae.get("shift_factor") or 0.0, vae_channels(vae)
    mean, std = vae.get("latents_mean"), vae.get("latents_std")
    if mean is None and std is None:
        return [shift] * channels, [1.0 / scale] * channels
    remedy = f"correct vae/config.json: both with a number for each of {channels} channels and no shift_factor, or neither"
    if mean is None or std is None or shift:
        said = [key for key in ("latents_mean", "latents_std", "shift_factor") if vae.get(key)]
        raise BundleError(f"the vae's config says {' and '.join(said)} alone, which scales no latents known here: {remedy}")
    if not len(mean) == len(std) == channels:
        raise BundleError(
            f"the vae's config says {len(mean)} latents_mean and {len(std)} latents_std for {channels} channels: {remedy}"
        )
    return list(mean), [deviation / scale for deviation in std]
