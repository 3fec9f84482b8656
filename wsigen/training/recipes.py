"""Recipes: every setting of a training, read from one YAML file and validated at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from wsigen.base.errors import ConfigError
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.models.card import Conditioning, DataSource, Patch, Rgb, Sampler, Text
from wsigen.training.grid_settings import EncodedGrid, GridTelling, SummariserSettings
from wsigen.training.ranges import Count, Decay, Natural, NotNegative, Positive, Share

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")

Stored = Literal["float32", "float16", "float8"]
"""Numbers of the weights of a bundle; see `publish.save_network`."""

STORED: Stored = Field(default="float32", description="numbers of its weights; float8: those of the large layers")


class LoopSettings(Settings):
    """The loop: how long, how fast, what is kept."""

    steps: Count = Field(default=10_000, description="optimiser steps; they alone decide the learning rate")
    batch: Count = Field(default=16, description="crops per step")
    micro_batch: Count | None = Field(
        default=None,
        description="crops per forward pass, by default all of a step. Parts of a step go in turn to the processes, so that "
        "their number changes neither batches nor noise",
    )
    learning_rate: Positive = Field(default=1e-4, description="the peak")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(default="one-cycle", description="see trainer.learning_rate")
    warmup_steps: Natural = Field(default=0, description="steps of linear rise; not used by one-cycle")
    weight_decay: NotNegative = Field(default=1e-4, description="of AdamW")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="of AdamW")
    clip: NotNegative = Field(default=1.0, description="largest norm of the gradient; 0: no limit")
    ema: Decay = Field(
        default=0.999, description="decay of the running mean of the weights, which is sampled and published; 0: the weights"
    )
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="mixed precision; no: fp32")
    minutes: Positive | None = Field(default=None, description="stop after so long, to be resumed")
    checkpoint_minutes: NotNegative = Field(default=5.0, description="time between checkpoints")
    sample_every: Natural = Field(default=1000, description="steps between sample grids; the end gets one, too; 0: none")
    log_every: Count = Field(default=50, description="steps between lines of progress")
    threads: Count = Field(default=4, description="threads that make batches, as many of which wait")

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


class NetworkSettings(Settings):
    """A convolutional network from scratch."""

    channels: tuple[Count, ...] = Field(description="per level of resolution, each half of the one before")
    layers: Count = Field(description="residual layers per level")
    norm_groups: Count = Field(description="groups of the group norms; they divide all channels")

    @model_validator(mode="after")
    def _whole_groups(self) -> NetworkSettings:
        self._divides("norm_groups", self.channels)
        return self

    def _divides(self, name: str, channels: tuple[int, ...]) -> None:
        uneven = [c for c in channels if c % getattr(self, name)]
        if uneven:
            raise ValueError(f"channels {uneven[0]} is no multiple of {name} {getattr(self, name)}")


class UNetSettings(NetworkSettings):
    """A U-Net from scratch."""

    channels: tuple[Count, ...] = (96, 160, 224)
    layers: Count = 2
    norm_groups: Count = 32
    head_dim: Count = Field(default=32, description="channels of an attention head")
    attention: Count = Field(default=1, description="attention at so many of the coarsest levels")

    @model_validator(mode="after")
    def _whole_heads(self) -> UNetSettings:
        if self.attention > len(self.channels):
            raise ValueError(f"attention at {self.attention} levels of {len(self.channels)}: there are no more")
        self._divides("head_dim", self.channels[-self.attention :])
        return self


class Recipe(Settings):
    """What the recipes of all models have."""

    dataset: Path = Field(description="dataset file")
    seed: Natural = 0
    loop: LoopSettings = LoopSettings()

    def decisive(self, *besides: str) -> dict[str, Any]:
        """The settings that decide the weights, without the dataset, which goes by its key, and ``besides``."""
        freely = {"minutes", "checkpoint_minutes", "sample_every", "log_every", "threads"}
        kept = self.model_dump(mode="json", exclude={"loop", "dataset", *besides})
        return kept | {"loop": self.loop.model_dump(mode="json", exclude=freely)}


class AutoencoderNetwork(NetworkSettings):
    """An ``AutoencoderKL`` from scratch; latents have the resolution of the coarsest level."""

    channels: tuple[Count, ...] = (32, 64, 128, 128)
    layers: Count = 1
    norm_groups: Count = 16
    latent_channels: Count = 8


class AutoencoderLosses(Settings):
    """Weights of the terms (`autoencoder_task.ReconstructionTerms`)."""

    l1: NotNegative = 1.0
    gradient: NotNegative = 0.6
    colour: NotNegative = 0.5
    kl: NotNegative = 5e-4
    adversary: NotNegative = 0.03
    adversary_start: Share = Field(default=0.5, description="share of the steps after which the adversary plays")
    adversary_learning_rate: Positive = 2e-4


class AutoencoderRecipe(Recipe):
    """``wsigen train autoencoder``."""

    start: Path | None = Field(default=None, description="folder of an AutoencoderKL to begin at, or a bundle")
    added_latents: Natural = Field(
        default=0, description="latent channels beyond those of start; the decoder begins by ignoring them"
    )
    crop_px: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    level_shares: tuple[NotNegative, ...] | None = Field(default=None, description="how often each level is drawn")
    unlabelled_share: Share | None = Field(
        default=None, description="share of crops of patches without any label, or with little; by default as many as there are"
    )
    latent_noise: NotNegative = Field(
        default=0.0,
        description="largest deviation of noise added to a crop's latents, in their own units; each crop draws its own, "
        "uniformly from 0. A decoder that has met it forgives the denoiser's small errors",
    )
    decoder_only: bool = Field(default=False, description="leave the encoder, hence the latents, as they are")
    network: AutoencoderNetwork = AutoencoderNetwork()
    losses: AutoencoderLosses = AutoencoderLosses()

    @model_validator(mode="after")
    def _added_to_something(self) -> AutoencoderRecipe:
        if self.added_latents and not self.start:
            raise ValueError("added_latents needs 'start'; without it set network.latent_channels")
        if self.added_latents and self.decoder_only:
            raise ValueError("added_latents changes the encoder: not with decoder_only")
        return self


class EntropySettings(Settings):
    """PathUp's feature entropy loss (`entropy`)."""

    enabled: bool = False
    beta: NotNegative = Field(default=0.1, description="weight of the loss")
    temperature: Positive = 0.07
    decay: Decay = Field(default=0.99, description="the memory's, the paper's alpha")


class BundleSettings(Settings):
    """What the published bundle says of itself (`models.card.BundleCard`)."""

    name: Text
    title: Text
    licence: Text
    not_for: Text
    training_data: tuple[DataSource, ...] = ()
    guidance: Annotated[float, Field(ge=0, le=50)] = 0.0  # none, and fresh noise: docs/default-model.md measures both
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    sampler: Sampler = "ddim"
    eta: Share = 1.0
    glass_rgb: Rgb | None = None
    stored: Stored = STORED


class NoiseLevels(Settings):
    """How often each noise level is seen: its place t / T is logit-normal (Esser et al. 2024, eq. 19).

    The middle of the schedule, where the picture takes its form, is seen more often than its ends.
    """

    mean: float | tuple[float, ...] = Field(
        default=0.0, description="of logit(t / T), above 0 more noise; or one for each magnification"
    )
    deviation: Positive = 1.0


class LatentRecipe(Recipe):
    """What is alike in the trainings of all networks that denoise latents, or grids."""

    prediction: Literal["epsilon", "v_prediction"] | None = Field(
        default=None, description="what the network predicts: by default as start does, else v_prediction"
    )
    betas: Literal["squaredcos_cap_v2", "scaled_linear", "linear"] | None = Field(
        default=None, description="the noise schedule: by default that of start, else the cosine (squaredcos_cap_v2)"
    )
    p_unc: Share = Field(default=0.1, description="share of crops whose condition is taken away (DiffInfinite: 0)")
    unlabelled_share: Share | None = Field(
        default=None,
        description="share of crops of patches without any label, or with little; by default as many as there are "
        "(DiffInfinite: 0.5)",
    )
    level_shares: tuple[NotNegative, ...] | None = Field(default=None, description="how often each level is drawn")
    noise_levels: NoiseLevels | None = Field(
        default=None, description="which noise levels are seen how often; by default all alike"
    )
    quarter_share: Share = Field(
        default=0.0, description="share of the steps whose crops are cut in four: four times the noise levels for the same work"
    )
    network: UNetSettings = UNetSettings()
    entropy: EntropySettings = EntropySettings()


class DenoiserRecipe(LatentRecipe):
    """``wsigen train denoiser``."""

    autoencoder: Path = Field(description="folder of an AutoencoderKL, a bundle, or what wsigen train autoencoder wrote")
    start: Path | None = Field(default=None, description="diffusers folder whose U-Net is fine-tuned")
    text: Path | None = Field(
        default=None, description="folder with text_encoder and tokenizer (conditioning text); that of start by default"
    )
    conditioning: Conditioning = Conditioning(kind="class-map")
    latent_variants: Annotated[int, Field(ge=1, le=8)] = Field(default=1, description="copies of every patch, turned")
    stain_jitter: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.0,
        description="largest relative change of the copies' optical densities. A denoiser paints the stains it saw: with "
        "jitter, neighbouring places of a slide may come out in different ones",
    )
    grid: EncodedGrid | None = Field(default=None, description="tell it a grid, too: mean colours, or an encoder's cells")
    bundle: BundleSettings

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> DenoiserRecipe:
        if self.conditioning.kind == "text" and not (self.text or self.start):
            raise ValueError("conditioning 'text' needs 'text' or 'start': a folder with text_encoder and tokenizer")
        if self.grid and self.grid.encoded and self.quarter_share:
            raise ValueError("quarter_share cuts crops in four, and an encoder's cells are told of whole ones: leave it out")
        if self.stain_jitter and self.latent_variants == 1:
            raise ValueError(
                f"stain_jitter {self.stain_jitter} changes the turned copies alone, and latent_variants 1 makes none: "
                "set latent_variants to 2 or more, or leave stain_jitter out"
            )
        return self

    @property
    def summariser(self) -> SummariserSettings | None:
        """Of a grid that is told by tokens."""
        return self.grid.summariser_settings if self.grid and self.grid.telling == "tokens" else None

    @property
    def one_class_of_a_crop(self) -> bool:
        """Whether the denoiser is told one class of a crop (tokens, prompts), not each of its pixels'."""
        return self.conditioning.kind in ("class-tokens", "text")


class GridSampling(Settings):
    """How grids are drawn later; see `models.card.GridNetwork`."""

    guidance: Annotated[float, Field(ge=0, le=50)] = 0.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    coarse_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    sampler: Sampler = "ddim"
    eta: Share = 1.0
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0


class GridUNet(UNetSettings):
    """A U-Net from scratch that sees squares of cells as one."""

    channels: tuple[Count, ...] = (96, 128, 176)
    layers: Count = 1
    norm_groups: Count = 16
    head_dim: Count = 16
    patch: Patch = Field(default=2, description="side of the squares, cells")


class GridRecipe(LatentRecipe):
    """``wsigen train grid``."""

    bundle: Path = Field(description="bundle that follows grids, whose grids the network shall draw")
    start: Path | None = Field(
        default=None,
        description="bundle whose network of grids is trained on; its classes, levels and 'network' are this recipe's",
    )
    telling: GridTelling = GridTelling(noise=0.15)
    network: GridUNet = GridUNet()
    stain_jitter: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.1, description="largest relative change of a crop's optical densities, each time anew"
    )
    sampling: GridSampling = GridSampling()
    larger: Literal[1, 2, 4] = Field(
        default=1,
        description="windows drawn later have up to so many times the side of a patch: fewer calls and borders",
    )
    stored: Stored = STORED

    @model_validator(mode="after")
    def _knows_the_noise(self) -> GridRecipe:
        if self.sampling.noise > self.telling.noise:
            raise ValueError(f"sampling.noise {self.sampling.noise} is more than telling.noise {self.telling.noise}")
        return self


class TokenNetwork(Settings):
    """The transformer that draws tokens; by default as large as ZoomLDM's, DiT-B."""

    hidden: Annotated[int, Field(ge=64, multiple_of=64)] = Field(default=768, description="64 for each head of the attention")
    depth: Annotated[int, Field(ge=1, le=256)] = 12


class TokenRecipe(Recipe):
    """``wsigen train tokens``."""

    bundle: Path = Field(description="bundle that is told grids by tokens, which the network shall draw")
    grids: Path | None = Field(default=None, description="where the grids of the images lie, or are made; by default OUT/grids")
    files: Path | None = Field(default=None, description="as grid.files of the denoiser, if it was trained with such")
    level_shares: tuple[NotNegative, ...] | None = Field(default=None, description="how often each level is drawn")
    network: TokenNetwork = TokenNetwork()


class MaskNetwork(UNetSettings):
    """A U-Net from scratch."""

    channels: Annotated[tuple[Count, ...], Field(min_length=2)] = (32, 64, 128)
    norm_groups: Count = 8
    attention: Count = 2


class MaskSampling(Settings):
    """How layouts are drawn and cleaned later; see `MaskCard`."""

    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    smallest: Count = 4


class MaskRecipe(Recipe):
    """``wsigen train mask``."""

    side: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=64,
        description="cells per side of the maps. Slides larger than side * cell_um are cut at random, so that a model of whole "
        "slides needs cells of at least a slide's extent over side",
    )
    cell_um: Positive | None = Field(
        default=None, description="um of a cell; by default 64 px of the dataset's finest level (DiffInfinite's 1/64)"
    )
    subtypes: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="names the model learns, in this order; by default all of the dataset"
    )
    least_slides: Count = Field(
        default=10, description="fewer labelled slides are refused: of a few, a model learns nothing but to repeat them"
    )
    padding: Literal["background", "unknown"] = Field(
        default="background",
        description="what smaller slides are padded with: the background class (if the dataset names one), or unknown, for "
        "images that are cut out of the tissue",
    )
    p_unc: Decay = Field(default=0.5, description="share of maps whose subtype is taken away")
    network: MaskNetwork = MaskNetwork()
    sampling: MaskSampling = MaskSampling()

    @model_validator(mode="after")
    def _fits(self) -> MaskRecipe:
        multiple = 2 ** (len(self.network.channels) - 1)
        if self.side % multiple:
            raise ValueError(f"side {self.side} is no multiple of {multiple}, which {len(self.network.channels)} levels need")
        return self


RECIPES: dict[str, type[Recipe]] = {
    "autoencoder": AutoencoderRecipe,
    "denoiser": DenoiserRecipe,
    "grid": GridRecipe,
    "tokens": TokenRecipe,
    "mask": MaskRecipe,
}
"""The recipe of each ``wsigen train`` command."""


PATHS = ("dataset", "autoencoder", "start", "text", "bundle", "grids", "files")


def read_recipe(kind: type[AnyRecipe], file: Path) -> AnyRecipe:
    """Read a recipe; its relative paths count from its own folder.

    Raises
    ------
    ConfigError
        One line with the path of the wrong field and, for an unknown key, the nearest known one.
    """
    content = read_mapping(file, ConfigError, "no such recipe")
    grid = content.get("grid")
    nested = [(grid, "files")] if isinstance(grid, dict) else []
    for where, key in [*((content, key) for key in PATHS), *nested]:
        if isinstance(where.get(key), str):
            where[key] = file.parent / Path(where[key]).expanduser()
    return validated(kind, content, str(file), ConfigError)
