"""The settings of the default model's training, read from one YAML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SectionSettings(_Settings):
    """How sections are read, cleaned and labelled."""

    patch_mpp: float = 0.7  # um/px of level "patch"
    overview_factor: int = 4  # "overview" is this many times coarser
    glass_rgb: tuple[int, int, int] = (243, 241, 244)  # what glass is painted with, 0-255
    margin_px: int = 512  # glass kept around the tissue's bounding box, at patch_mpp
    held_out: str = "C3"  # the section that is measured on and not trained on


class AutoencoderSettings(_Settings):
    """Architecture and losses of the f8 autoencoder."""

    channels: tuple[int, ...] = (32, 64, 128, 128)
    latent_channels: int = 8
    layers: int = 1
    norm_groups: int = 16
    minutes: float = 25.0
    crop_px: int = 160
    batch: int = 4
    overview_share: float = 0.25  # crops taken from level "overview"
    learning_rate: float = 6e-4
    gradient_weight: float = 0.6  # L1 of image gradients
    colour_weight: float = 0.5  # L1 of local mean colour
    kl_weight: float = 5e-4
    adversary_weight: float = 0.03
    decoder_minutes: float = 10.0  # afterwards, the decoder alone
    decoder_learning_rate: float = 4e-4
    adversary_start: float = 0.55  # share of the budget after which the adversary plays

    def for_decoder(self) -> AutoencoderSettings:
        """Return the settings of the second stage, in which the decoder is trained alone."""
        changes = {"minutes": self.decoder_minutes, "learning_rate": self.decoder_learning_rate}
        return self.model_copy(update={**changes, "adversary_start": 0.0})


class DenoiserSettings(_Settings):
    """Architecture and schedule of the class-map conditioned denoiser."""

    channels: tuple[int, ...] = (96, 160, 224)
    layers: int = 2
    norm_groups: int = 32
    head_dim: int = 32  # channels per attention head; divides the coarsest width
    minutes: float = 55.0
    small_crop: tuple[int, int] = (32, 16)  # (latents, batch): two steps of three
    large_crop: tuple[int, int] = (64, 4)  # (latents, batch): one step of three
    overview_share: float = 0.25
    map_dropout: float = 0.12  # share of crops whose whole map is unknown
    learning_rate: float = 3e-4
    ema: float = 0.998
    latent_variants: int = 3  # dihedral variants of the patch level that are encoded and cached
    guidance: float = 0.5
    steps: int = 20


class TrainingSettings(_Settings):
    """Everything the pipeline ``default_model`` needs to know."""

    seed: int = 0
    threads: int = 2
    checkpoint_minutes: float = 5.0
    sections: SectionSettings = SectionSettings()
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    denoiser: DenoiserSettings = DenoiserSettings()


def read_settings(path: Path) -> TrainingSettings:
    """Read and validate the settings; an unknown or wrong field is named."""
    import yaml

    return TrainingSettings.model_validate(yaml.safe_load(path.read_text()) or {})
