"""A trained denoiser and its autoencoder as a bundle that ``wsigen.generate`` takes at once."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import nn

from wsigen.base.classes import ClassTable
from wsigen.base.errors import TrainingError
from wsigen.models.card import CARD_NAME, BundleCard, Conditioning, Level, make_card
from wsigen.training.recipes import BundleSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler

_README = """# {name}: {title}

A latent diffusion model of histological images, trained with wsigen.

**Not for:** {not_for}

Licence: {licence}.

## Training data

{data}

## Classes and levels

{classes}

{levels}

Conditioning: {kind}. Crops of {crop} latent px ({crop_px} px). Prediction: {prediction}.

## Figures of the training

{figures}

    wsigen generate slide.ome.tiff --model PATH/OF/THIS/FOLDER --class "{example}" --size 4096x4096
"""


@dataclass(frozen=True)
class Trained:
    """What a bundle is made of; ``text`` is (tokenizer, text encoder) for prompts, ``figures`` go into the README."""

    vae: AutoencoderKL
    unet: nn.Module
    scheduler: DDIMScheduler
    figures: dict[str, float]
    text: tuple[Any, Any] | None = None


def describe_bundle(
    settings: BundleSettings,
    conditioning: Conditioning,
    table: ClassTable,
    levels: Sequence[Level],
    mean: Sequence[float],
    std: Sequence[float],
    crop_latent: int,
) -> BundleCard:
    """Build the card from the recipe's words, the dataset's classes and levels, and the latents' mean and spread."""
    content = {
        "format": 1,
        **settings.model_dump(mode="json", exclude={"half"}, exclude_none=True),
        "classes": [{"name": c.name, "color": list(c.color), "background": c.background} for c in table],
        "levels": [level.model_dump(mode="json") for level in levels],
        "conditioning": conditioning.model_dump(mode="json"),
        "latent": {
            "channels": len(mean),
            "factor": 8,
            "mean": [round(float(v), 6) for v in mean],
            "std": [round(float(v), 6) for v in std],
            "image_range": [-1.0, 1.0],
        },
        "crop_latent": crop_latent,
    }
    return make_card(content, "bundle")


def publish_bundle(trained: Trained, card: BundleCard, folder: Path, half: bool = False) -> None:
    """Write the bundle beside ``folder``, check it, and then put it in its place.

    Raises
    ------
    BundleError
        If the parts do not fit the card.
    TrainingError
        If it cannot be written.
    """
    from wsigen.models.bundle import check_bundle

    beside = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        _write(trained, card, beside, half)
        check_bundle(beside)
        replace_folder(beside, folder)
    except OSError as error:
        raise TrainingError(f"{folder}: the bundle cannot be written ({error}); the checkpoint is kept: resume") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def save_autoencoder(vae: AutoencoderKL, folder: Path) -> None:
    """Write an autoencoder as a diffusers folder, whole or not at all."""
    beside = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        _plain(vae, False).save_pretrained(str(beside), safe_serialization=True)
        replace_folder(beside, folder)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); the checkpoint is kept: resume") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(trained: Trained, card: BundleCard, folder: Path, half: bool) -> None:
    for name, part in (("vae", trained.vae), ("unet", trained.unet)):
        _plain(part, half).save_pretrained(str(folder / name), safe_serialization=True)
    trained.scheduler.save_pretrained(str(folder / "scheduler"))
    if trained.text is not None:
        tokenizer, encoder = trained.text
        tokenizer.save_pretrained(str(folder / "tokenizer"))
        encoder.save_pretrained(str(folder / "text_encoder"), safe_serialization=True)
    text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
    (folder / CARD_NAME).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(_readme(trained, card), encoding="utf-8")


def _plain(part: Any, half: bool) -> Any:
    """A copy on the CPU, in the order of memory that safetensors stores."""
    plain = copy.deepcopy(part).to("cpu").to(memory_format=torch.contiguous_format)
    return plain.half() if half else plain


def replace_folder(beside: Path, folder: Path) -> None:
    """Put a folder in the place of another, which may or may not be there."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _readme(trained: Trained, card: BundleCard) -> str:
    sources = [f"- {d.name}: {d.attribution}, {d.url or d.doi}, licence {d.licence}" for d in card.training_data]
    classes = [f"- {c.name}{' (background)' if c.background else ''}" for c in card.classes]
    levels = [f"- level {level.name}: {level.mpp or 'unknown'} um/px" for level in card.levels]
    figures = [f"- {name}: {value:.5g}" for name, value in trained.figures.items()]
    tissue = next((c.name for c in card.classes if not c.background), card.classes[0].name)
    return _README.format(
        name=card.name,
        title=card.title,
        not_for=card.not_for,
        licence=card.licence,
        data="\n".join(sources) or "Not said.",
        classes="\n".join(classes),
        levels="\n".join(levels),
        kind=card.conditioning.kind,
        crop=card.crop_latent,
        crop_px=card.crop_latent * card.latent.factor,
        prediction=trained.scheduler.config["prediction_type"],
        figures="\n".join(figures) or "None.",
        example=tissue,
    )
