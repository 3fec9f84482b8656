"""JSON configs of networks in diffusers' format: what is read of them, in its type and within what is plausible.

Whatever else a config says decides how diffusers builds the network; that is bounded by what the weights hold
(`loading.demand_fit`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from wsigen.base.errors import BundleError
from wsigen.base.json_file import read_json
from wsigen.base.yaml_file import validated

Config = dict[str, Any]
"""The JSON config of a network."""

Channels = Annotated[int, Field(ge=1, le=65_536)]
Widths = Annotated[list[Channels], Field(min_length=1, max_length=12)]
"""Channels of each block; every block halves the image."""

Layers = Annotated[int, Field(ge=1, le=64)]
Px = Annotated[int, Field(ge=1, le=65_536)]
Word = Annotated[str, Field(max_length=100)]


class _Config(BaseModel):
    """Nothing is converted; names that are not read here are diffusers' own."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    class_name: Annotated[Word | None, Field(alias="_class_name")] = None
    quantization_config: None = None


class VaeConfig(_Config):
    """Of an ``AutoencoderKL``, ``AutoencoderTiny`` or ``VQModel``."""

    in_channels: Channels = 3
    out_channels: Channels = 3
    latent_channels: Channels | None = None
    num_vq_embeddings: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    vq_embed_dim: Channels | None = None
    block_out_channels: Widths | None = None
    encoder_block_out_channels: Widths | None = None
    decoder_block_out_channels: Widths | None = None
    layers_per_block: Layers | None = None
    num_encoder_blocks: list[Layers] | None = None
    num_decoder_blocks: list[Layers] | None = None
    upsampling_scaling_factor: Annotated[int, Field(ge=1, le=8)] = 2
    shift_factor: float | None = None
    scaling_factor: Annotated[float, Field(gt=0)] | None = None
    latents_mean: list[float] | None = None
    latents_std: list[Annotated[float, Field(gt=0)]] | None = None
    mid_block_add_attention: bool | None = None


class UnetConfig(_Config):
    """Of a ``UNet2DModel`` or ``UNet2DConditionModel``."""

    in_channels: Channels | None = None
    out_channels: Channels | None = None
    block_out_channels: Widths | None = None
    layers_per_block: Layers | list[Layers] | None = None
    num_class_embeds: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    cross_attention_dim: Channels | list[Channels] | None = None
    sample_size: Px | list[Px] | None = None
    class_embed_type: Word | None = None
    addition_embed_type: Word | None = None


class SchedulerConfig(_Config):
    """Of any scheduler with betas."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    beta_schedule: Word | None = None
    beta_start: Annotated[float, Field(ge=0, lt=1)] | None = None
    beta_end: Annotated[float, Field(ge=0, lt=1)] | None = None
    trained_betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(max_length=100_000)] | None = None
    prediction_type: Word | None = None
    rescale_betas_zero_snr: bool | None = None
    clip_sample: bool | None = None
    clip_sample_range: Annotated[float, Field(gt=0)] | None = None


class TextConfig(_Config):
    """Of a ``CLIPTextModel``."""

    hidden_size: Channels | None = None
    intermediate_size: Channels | None = None
    projection_dim: Channels | None = None
    num_hidden_layers: Annotated[int, Field(ge=1, le=256)] | None = None
    num_attention_heads: Channels | None = None
    vocab_size: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_position_embeddings: Px | None = None


_KINDS: dict[str, type[_Config]] = {
    "vae": VaeConfig,
    "unet": UnetConfig,
    "scheduler": SchedulerConfig,
    "text_encoder": TextConfig,
}


def read_config(folder: Path, part: str) -> Config:
    """Read the config of ``vae``, ``unet``, ``scheduler`` or ``text_encoder``.

    Raises
    ------
    BundleError
        If the part is missing, its config is not a JSON object, or a value in it is of another type or implausible.
    """
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    file = folder / part / name
    try:
        content = read_json(file, BundleError, "copy the bundle again")
    except FileNotFoundError:
        if part == "vae" and (folder / "vqvae").is_dir():
            raise BundleError(f"{folder}: its autoencoder lies in vqvae; rename that folder to vae") from None
        raise BundleError(f"{folder}: no {part}/{name}; a bundle is a diffusers folder with vae, unet and scheduler") from None
    if not isinstance(content, dict):
        raise BundleError(f"{file}: expected a JSON object, found {type(content).__name__}")
    try:
        validated(_KINDS[part], content, str(file), BundleError)
    except BundleError as error:
        raise BundleError(f"{error}; correct it there, or copy the bundle again") from None
    return content
