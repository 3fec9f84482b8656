"""Recipes: every setting of a training, read from one YAML file and validated at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsigen.base.errors import ConfigError
from wsigen.base.yaml_file import read_mapping, validated
from wsigen.models.card import Conditioning, DataSource, Rgb, Text

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Recipe = TypeVar("Recipe", bound=BaseModel)


class Settings(BaseModel):
    """A part of a recipe: no unknown fields, no infinite numbers, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class LoopSettings(Settings):
    """The loop: how long, how fast, what is kept.

    Attributes
    ----------
    steps:
        Optimiser steps; they alone decide the learning rate.
    batch, micro_batch:
        Crops per step, and crops per forward pass (all of them by default). Parts of a step go in turn to the
        processes, so that their number changes neither batches nor noise.
    learning_rate, schedule, warmup_steps:
        The peak; see `rates.learning_rate`.
    weight_decay, betas, clip:
        Of AdamW; largest norm of the gradient (0: no clipping).
    ema:
        Decay of the running mean of the weights, which is what is sampled and published; 0: the weights themselves.
    precision:
        ``no`` (fp32), ``bf16`` or ``fp16`` mixed precision.
    minutes:
        Stop after so long, to be resumed; not part of the configuration.
    checkpoint_minutes, sample_every, log_every, threads:
        Time between checkpoints; steps between sample grids (0: none) and between lines of progress; threads that
        make batches, as many of which wait. None is part of the configuration.
    """

    steps: Count = 10_000
    batch: Count = 16
    micro_batch: Count | None = None
    learning_rate: Positive = 1e-4
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NotNegative = 1e-4
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip: NotNegative = 1.0
    ema: Decay = 0.999
    precision: Literal["no", "bf16", "fp16"] = "no"
    minutes: Positive | None = None
    checkpoint_minutes: NotNegative = 5.0
    sample_every: Annotated[int, Field(ge=0)] = 1000
    log_every: Count = 50
    threads: Count = 4

    @model_validator(mode="after")
    def _whole_parts(self) -> LoopSettings:
        if self.batch % self.part:
            raise ValueError(f"batch {self.batch} is no multiple of micro_batch {self.part}")
        return self

    @property
    def part(self) -> int:
        """Crops per forward pass."""
        return self.micro_batch or self.batch

    @property
    def parts(self) -> int:
        """Forward passes per step."""
        return self.batch // self.part

    def identity(self) -> dict[str, Any]:
        """The settings that decide the weights."""
        told = {"minutes", "checkpoint_minutes", "sample_every", "log_every", "threads"}
        return self.model_dump(mode="json", exclude=told)


class AutoencoderNetwork(Settings):
    """An ``AutoencoderKL`` from scratch: channels per level (four: factor 8), residual layers of each, norms."""

    channels: tuple[Count, ...] = (32, 64, 128, 128)
    layers: Count = 1
    latent_channels: Count = 8
    norm_groups: Count = 16


class AutoencoderLosses(Settings):
    """Weights of the terms; the adversary plays from ``adversary_start`` (share of the steps) on."""

    l1: NotNegative = 1.0
    gradient: NotNegative = 0.6
    colour: NotNegative = 0.5
    kl: NotNegative = 5e-4
    adversary: NotNegative = 0.03
    adversary_start: Share = 0.5
    adversary_learning_rate: Positive = 2e-4


class AutoencoderRecipe(Settings):
    """``wsigen train autoencoder``.

    Attributes
    ----------
    dataset, start:
        Dataset file; folder of an ``AutoencoderKL`` to begin at (or a bundle), by default none.
    unlabelled_share:
        Share of crops drawn from images without any label; by default as many as there are.
    added_latents:
        Latent channels beyond those of ``start``; the decoder begins by ignoring them.
    latent_noise:
        Largest standard deviation of noise that is added to a crop's latents, in their own units; each crop draws its
        own, uniformly from 0. A decoder that has met it forgives the denoiser's small errors.
    decoder_only:
        Leave the encoder, hence the latents, as they are.
    """

    dataset: Path
    start: Path | None = None
    added_latents: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    crop_px: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    level_shares: tuple[NotNegative, ...] | None = None
    unlabelled_share: Share | None = None
    latent_noise: NotNegative = 0.0
    decoder_only: bool = False
    network: AutoencoderNetwork = AutoencoderNetwork()
    losses: AutoencoderLosses = AutoencoderLosses()
    loop: LoopSettings = LoopSettings()

    @model_validator(mode="after")
    def _added_to_something(self) -> AutoencoderRecipe:
        if self.added_latents and not self.start:
            raise ValueError("added_latents needs 'start'; without it set network.latent_channels")
        if self.added_latents and self.decoder_only:
            raise ValueError("added_latents changes the encoder: not with decoder_only")
        return self


class DenoiserNetwork(Settings):
    """A U-Net from scratch, with attention at its ``attention`` coarsest levels."""

    channels: tuple[Count, ...] = (96, 160, 224)
    layers: Count = 2
    norm_groups: Count = 32
    head_dim: Count = 32
    attention: Count = 1

    @model_validator(mode="after")
    def _levels(self) -> DenoiserNetwork:
        if self.attention > len(self.channels):
            raise ValueError(f"attention at {self.attention} levels of {len(self.channels)}: there are no more")
        return self


class EntropySettings(Settings):
    """PathUp's feature entropy loss (`entropy`): its weight beta, temperature and the memory's decay alpha."""

    enabled: bool = False
    beta: NotNegative = 0.1
    temperature: Positive = 0.07
    decay: Decay = 0.99


class BundleSettings(Settings):
    """What the published bundle says of itself; ``half``: weights in float16."""

    name: Text
    title: Text
    licence: Text
    not_for: Text
    training_data: tuple[DataSource, ...] = ()
    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    glass_rgb: Rgb | None = None
    half: bool = False


class DenoiserRecipe(Settings):
    """``wsigen train denoiser``.

    Attributes
    ----------
    dataset, autoencoder, start:
        Dataset file; folder of the autoencoder (``vae``, a bundle, or what ``wsigen train autoencoder`` wrote); diffusers
        folder whose U-Net is fine-tuned.
    text:
        Folder with ``text_encoder`` and ``tokenizer`` (conditioning ``text``); that of ``start`` by default.
    prediction, betas:
        Of the training schedule; with ``start`` its own by default, else ``v_prediction`` and the cosine schedule.
    p_unc, unlabelled_share:
        Share of crops whose condition is taken away; share drawn from images without any label (by
        default as many as there are). DiffInfinite: 0 and 0.5.
    latent_variants, stain_jitter:
        Turned copies of every patch that are encoded; largest relative change of their optical densities. A denoiser paints
        the stains it saw: with jitter, neighbouring places of a slide may come out in different ones.
    quarter_share:
        Share of the steps whose crops are cut in four: four times as many noise levels for the same work.
    """

    dataset: Path
    autoencoder: Path
    start: Path | None = None
    text: Path | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    conditioning: Conditioning = Conditioning(kind="class-map")
    prediction: Literal["epsilon", "v_prediction"] | None = None
    betas: Literal["squaredcos_cap_v2", "scaled_linear", "linear"] | None = None
    p_unc: Share = 0.1
    unlabelled_share: Share | None = None
    level_shares: tuple[NotNegative, ...] | None = None
    latent_variants: Annotated[int, Field(ge=1, le=8)] = 1
    stain_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    quarter_share: Share = 0.0
    network: DenoiserNetwork = DenoiserNetwork()
    entropy: EntropySettings = EntropySettings()
    loop: LoopSettings = LoopSettings()
    bundle: BundleSettings

    @model_validator(mode="after")
    def _text_has_an_encoder(self) -> DenoiserRecipe:
        if self.conditioning.kind == "text" and not (self.text or self.start):
            raise ValueError("conditioning 'text' needs 'text' or 'start': a folder with text_encoder and tokenizer")
        return self


def read_recipe(kind: type[Recipe], file: Path) -> Recipe:
    """Read a recipe; its relative paths count from its own folder.

    Raises
    ------
    ConfigError
        One line with the path of the wrong field and, for an unknown key, the nearest known one.
    """
    content = read_mapping(file, ConfigError, "no such recipe")
    for key in ("dataset", "autoencoder", "start", "text"):
        if isinstance(content.get(key), str):
            content[key] = file.parent / Path(content[key]).expanduser()
    return validated(kind, content, str(file), ConfigError)
