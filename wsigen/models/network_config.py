"""JSON configs of networks in diffusers' format: what is read of them, in its type and within what is plausible.

Whatever else a config says decides how diffusers builds the network; that is bounded by what the weights hold
(`loading.demand_fit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsigen.base.errors import BundleError
from wsigen.base.json_file import read_json
from wsigen.base.yaml_file import Settings, validated

Config = dict[str, Any]
"""The JSON config of a network."""

Channels = Annotated[int, Field(ge=1, le=65_536)]
Widths = Annotated[list[Channels], Field(min_length=1, max_length=12)]
"""Channels of each block; every block halves the image."""

Layers = Annotated[int, Field(ge=1, le=64)]
Side = Annotated[int, Field(ge=1, le=256)]
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


class TransformerConfig(_Config):
    """Of a ``DiTTransformer2DModel`` or ``PixArtTransformer2DModel``."""

    in_channels: Channels | None = None
    out_channels: Channels | None = None
    num_attention_heads: Channels = 16
    attention_head_dim: Channels = 72
    num_layers: Layers | None = None
    patch_size: Annotated[int, Field(ge=1, le=64)] | None = None
    sample_size: Px | None = None
    num_embeds_ada_norm: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    cross_attention_dim: Channels | None = None
    caption_channels: Channels | None = None


class SchedulerConfig(_Config):
    """Of any scheduler with betas, or of flow matching."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    beta_schedule: Word | None = None
    beta_start: Annotated[float, Field(ge=0, lt=1)] | None = None
    beta_end: Annotated[float, Field(ge=0, lt=1)] | None = None
    trained_betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(max_length=100_000)] | None = None
    prediction_type: Word | None = None
    rescale_betas_zero_snr: bool | None = None
    clip_sample: bool | None = None
    clip_sample_range: Annotated[float, Field(gt=0)] | None = None
    shift: Annotated[float, Field(gt=0, le=1000)] | None = None
    flow_shift: Annotated[float, Field(gt=0, le=1000)] | None = None
    use_flow_sigmas: bool | None = None


class TextConfig(_Config):
    """Of a ``CLIPTextModel`` or a ``T5EncoderModel``."""

    model_type: Word | None = None
    d_model: Channels | None = None
    d_kv: Channels | None = None
    d_ff: Channels | None = None
    num_layers: Annotated[int, Field(ge=1, le=256)] | None = None
    num_heads: Channels | None = None
    hidden_size: Channels | None = None
    intermediate_size: Channels | None = None
    projection_dim: Channels | None = None
    num_hidden_layers: Annotated[int, Field(ge=1, le=256)] | None = None
    num_attention_heads: Channels | None = None
    vocab_size: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_position_embeddings: Px | None = None


class ViTSummariserConfig(_Config):
    """Of a `summariser.ViTSummariser`."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    class_name: Annotated[Literal["ViTSummariser"], Field(alias="_class_name")]
    dimension: Channels
    levels: Annotated[int, Field(ge=1, le=100)]
    side: Side = 8
    width: Channels = 512
    layers: Layers = 12
    heads: Channels = 8
    mlp: Channels = 2048

    @model_validator(mode="after")
    def _whole_heads(self) -> ViTSummariserConfig:
        if self.width % self.heads or self.side & (self.side - 1):
            raise ValueError("heads must divide width, and side must be a power of two")
        return self


class ConvSummariserConfig(_Config):
    """Of a `summariser.ConvSummariser`."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    class_name: Annotated[Literal["ConvSummariser"], Field(alias="_class_name")]
    dimension: Channels
    levels: Annotated[int, Field(ge=1, le=100)]
    side: Side = 128
    width: Channels = 512
    out_side: Side = 8
    groups: Channels = 32

    @model_validator(mode="after")
    def _whole_halvings(self) -> ConvSummariserConfig:
        halvings, rest = divmod(self.side, self.out_side)
        if rest or halvings & (halvings - 1) or self.width % self.groups:
            raise ValueError("side must be out_side times a power of two, and groups must divide width")
        return self


class TokenModelConfig(Settings):
    """Of a `token_model.TokenModel`.

    Attributes
    ----------
    tokens, width : int
        T and C of what it draws.
    levels : int
        Magnifications.
    hidden, depth, heads : int
        Of the transformer.
    """

    tokens: Channels
    width: Channels
    levels: Annotated[int, Field(ge=1, le=100)]
    hidden: Channels
    depth: Annotated[int, Field(ge=1, le=256)]
    heads: Channels

    @model_validator(mode="after")
    def _whole_heads(self) -> TokenModelConfig:
        if self.hidden % self.heads:
            raise ValueError(f"heads {self.heads} must divide hidden {self.hidden}")
        return self


SUMMARISERS: dict[str, type[_Config]] = {
    "ViTSummariser": ViTSummariserConfig,
    "ConvSummariser": ConvSummariserConfig,
}

_KINDS: dict[str, type[BaseModel]] = {
    "vae": VaeConfig,
    "unet": UnetConfig,
    "transformer": TransformerConfig,
    "scheduler": SchedulerConfig,
    "text_encoder": TextConfig,
    "token_model": TokenModelConfig,
}


_OLD_TRANSFORMERS = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
"""What diffusers calls today what it once called Transformer2DModel, by ``norm_type``."""


def read_config(folder: Path, part: str) -> Config:
    """Read the config of ``vae``, ``unet``, ``transformer``, ``scheduler``, ``text_encoder``, ``summariser``, ``token_model``.

    Raises
    ------
    BundleError
        If the part is missing, its config is not a JSON object, or a value in it is of another type or implausible.
    """
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    file = folder / part / name
    try:
        # a sampler's lowest lambda is -Infinity in what diffusers saves
        content = read_json(file, BundleError, "copy the bundle again", allow_infinite=part == "scheduler")
    except FileNotFoundError:
        if part == "vae" and (folder / "vqvae").is_dir():
            raise BundleError(f"{folder}: its autoencoder lies in vqvae; rename that folder to vae") from None
        made_of = "a diffusers folder with vae, unet (or transformer) and scheduler"
        raise BundleError(f"{folder}: no {part}/{name}; a bundle is {made_of}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{file}: expected a JSON object, found {type(content).__name__}")
    if part == "summariser":
        return {"_class_name": content.get("_class_name"), **_summariser(content, str(file))}
    try:
        validated(_KINDS[part], content, str(file), BundleError)
    except BundleError as error:
        raise BundleError(f"{error}; correct it there, or copy the bundle again") from None
    return _in_full(content) if part == "transformer" else content


def _in_full(config: Config) -> Config:
    """The config of a transformer with its class in today's words, and with what diffusers decides by its size."""
    name = str(config.get("_class_name"))
    if name == "Transformer2DModel":
        name = _OLD_TRANSFORMERS.get(str(config.get("norm_type")), name)
    sized = name == "PixArtTransformer2DModel" and config.get("use_additional_conditions") is None
    told_size = {"use_additional_conditions": config.get("sample_size", 128) == 128} if sized else {}
    return {**config, "_class_name": name, **told_size}


def _summariser(content: Config, source: str) -> Config:
    """The arguments of a summariser, those that its config leaves out included (BundleError)."""
    name = content.get("_class_name")
    if name not in SUMMARISERS:
        raise BundleError(f"{source}: the summariser is a {name}; possible: {', '.join(SUMMARISERS)}")
    return validated(SUMMARISERS[name], content, source, BundleError).model_dump(exclude={"class_name", "quantization_config"})


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A kind of model that reads prompts: transformers' classes of it, its tokenizer and its config, the key of its width, and
    how many tokens a prompt has at most (None: the config says so)."""

    model: str
    tokenizer: str
    config: str
    width: str
    most: int | None = None


TEXT_ENCODERS = {
    "clip_text_model": TextEncoder("CLIPTextModel", "CLIPTokenizer", "CLIPTextConfig", "hidden_size"),
    "t5": TextEncoder("T5EncoderModel", "T5Tokenizer", "T5Config", "d_model", most=300),  # as PixArt-Sigma was trained
}
"""By ``model_type``."""


def read_text_encoder(folder: Path) -> tuple[Config, TextEncoder]:
    """Read the config of a bundle's text encoder, and of which kind it is (BundleError if that is not known)."""
    config = read_config(folder, "text_encoder")
    kind = config.get("model_type") or "clip_text_model"
    if kind not in TEXT_ENCODERS:
        raise BundleError(f"{folder}: the text encoder is a {kind}; possible: {', '.join(TEXT_ENCODERS)}")
    return config, TEXT_ENCODERS[kind]
