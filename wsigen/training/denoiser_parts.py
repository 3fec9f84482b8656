"""The denoiser's network and schedule: built, or loaded and made to fit the dataset's classes and levels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wsigen.base.errors import TrainingError
from wsigen.models.card import BundleCard
from wsigen.training.recipes import DenoiserNetwork, DenoiserRecipe
from wsigen.training.starting import card_of, embeddings, fit, input_channels

if TYPE_CHECKING:
    from diffusers import DDIMScheduler


def build_unet(settings: DenoiserNetwork, card: BundleCard, side: int, text_width: int = 0) -> nn.Module:
    """Build an untrained U-Net; ``side`` of the crops in latent px, ``text_width`` of CLIP's embeddings."""
    from diffusers import UNet2DConditionModel, UNet2DModel

    kind = card.conditioning.kind

    depth = len(settings.channels)
    if side % 2 ** (depth - 1):
        raise TrainingError(
            f"crops of {side} latent px: network.channels of {depth} levels need a multiple of {2 ** (depth - 1)}"
        )
    uneven = [c for c in settings.channels if c % settings.norm_groups]
    if uneven:
        raise TrainingError(f"network.channels {uneven[0]} is no multiple of network.norm_groups {settings.norm_groups}")
    uneven = [c for c in settings.channels[-settings.attention :] if c % settings.head_dim]
    if uneven:
        raise TrainingError(f"network.channels {uneven[0]} is no multiple of network.head_dim {settings.head_dim}")
    attentive, plain = settings.attention, depth - settings.attention
    shared: dict[str, Any] = {
        "sample_size": side,
        "in_channels": input_channels(card),
        "out_channels": card.latent.channels,
        "block_out_channels": settings.channels,
        "layers_per_block": settings.layers,
        "norm_num_groups": settings.norm_groups,
    }
    if kind == "text":
        return UNet2DConditionModel(
            **shared,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * attentive,
            up_block_types=("CrossAttnUpBlock2D",) * attentive + ("UpBlock2D",) * plain,
            attention_head_dim=tuple(max(1, c // settings.head_dim) for c in settings.channels),  # diffusers counts heads here
            cross_attention_dim=text_width,
        )
    return UNet2DModel(
        **shared,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attentive,
        up_block_types=("AttnUpBlock2D",) * attentive + ("UpBlock2D",) * plain,
        attention_head_dim=settings.head_dim,
        num_class_embeds=embeddings(card),
    )


def load_unet(folder: Path, card: BundleCard, text_width: int = 0) -> nn.Module:
    """Load the U-Net of a bundle or diffusers folder and make its inputs fit the card (`starting.fit`).

    ``text_width`` is that of the prompts' embeddings, 0 without prompts.

    Raises
    ------
    TrainingError
        If it cannot be loaded, is of the wrong kind for the conditioning, or has other latents or prompts.
    """
    import diffusers

    kind, latent_channels = card.conditioning.kind, card.latent.channels
    wanted = "UNet2DConditionModel" if kind == "text" else "UNet2DModel"
    found = folder / "unet" if (folder / "unet").is_dir() else folder
    try:
        name = getattr(diffusers, wanted).load_config(str(found), local_files_only=True).get("_class_name")
        if name != wanted:
            raise TrainingError(f"{found}: a {name}; conditioning '{kind}' needs a {wanted}")
        unet = getattr(diffusers, wanted).from_pretrained(
            str(found), use_safetensors=True, local_files_only=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{found}: cannot be loaded as {wanted} ({reason})") from None
    if unet.config["out_channels"] != latent_channels:
        given = unet.config["out_channels"]
        raise TrainingError(f"{found}: made for {given} latent channels, the autoencoder has {latent_channels}")
    # a network may bring the prompts to its own width by a layer of its own
    width = unet.config.get("encoder_hid_dim") or unet.config.get("cross_attention_dim")
    widths = set(width) if isinstance(width, list | tuple) else {width}  # some say it block by block
    if text_width and widths != {text_width}:
        raise TrainingError(
            f"{found}: listens to prompts of {width} numbers a token, the text encoder gives {text_width}; give 'text' the "
            "folder of the text encoder it was trained with"
        )
    fit(unet, card, card_of(folder), found)
    return unet


def build_schedule(recipe: DenoiserRecipe) -> DDIMScheduler:
    """The training schedule: that of ``start``, with what the recipe says otherwise."""
    from diffusers import DDIMScheduler

    folder = recipe.start / "scheduler" if recipe.start else None
    if folder is not None and folder.is_dir():
        config = dict(DDIMScheduler.load_config(str(folder), local_files_only=True))
        config.setdefault("prediction_type", "epsilon")
    else:
        config = {"num_train_timesteps": 1000, "prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}
    if recipe.prediction:
        config["prediction_type"] = recipe.prediction
    if recipe.betas:
        config["beta_schedule"] = recipe.betas
    config |= {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler.from_config(config)
    kind = scheduler.config["prediction_type"]
    if kind not in ("epsilon", "v_prediction"):
        raise TrainingError(f"{folder}: prediction_type {kind!r} cannot be trained; set prediction: epsilon or v_prediction")
    if kind == "epsilon" and scheduler.config["rescale_betas_zero_snr"]:
        raise TrainingError(
            f"{folder}: its schedule ends in pure noise (rescale_betas_zero_snr), of which an epsilon prediction says "
            "nothing and which no bundle may hold; set prediction: v_prediction"
        )
    return scheduler
