"""Writes a trained model as a bundle: diffusers folders, ``wsigen.yaml`` and a model card."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wsigen.training.card import DATA, NOT_FOR, model_card
from wsigen.training.denoiser import build_scheduler
from wsigen.training.settings import TrainingSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel

_CLASSES: list[dict[str, Any]] = [
    {"name": "Glass", "color": [235, 235, 240], "background": True},
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
    {"name": "Immune cells", "color": [160, 90, 160]},
    {"name": "Other", "color": [255, 200, 0]},
]


@dataclass(frozen=True)
class TrainedModel:
    """What a bundle is made of.

    Attributes
    ----------
    mean, std : of every latent channel, before standardising
    figures : what the card reports: ``psnr_db``, ``colour_error``, ``colour_shift``,
        ``unet_loss``, and each stage's steps and minutes: ``ae_steps``, ``decoder_minutes``, ...
    """

    vae: AutoencoderKL
    unet: UNet2DModel
    mean: list[float]
    std: list[float]
    figures: dict[str, float]


def bundle_description(model: TrainedModel, settings: TrainingSettings) -> dict[str, Any]:
    """Build what ``wsigen.yaml`` says."""
    sections = settings.sections
    return {
        "format": 1,
        "name": "her2st-demo",
        "title": "Demonstration model: H&E breast cancer tissue from five sections of one patient",
        "licence": "CC-BY-4.0",
        "training_data": [DATA],
        "not_for": NOT_FOR,
        "classes": _CLASSES,
        "levels": [
            {"name": "patch", "mpp": sections.patch_mpp},
            {"name": "overview", "mpp": round(sections.patch_mpp * sections.overview_factor, 6)},
        ],
        "conditioning": {"kind": "class-map"},
        "latent": {
            "channels": settings.autoencoder.latent_channels,
            "factor": 8,
            "mean": model.mean,
            "std": model.std,
            "image_range": [-1.0, 1.0],
        },
        "crop_latent": settings.denoiser.large_crop[0],
        "guidance": settings.denoiser.guidance,
        "steps": settings.denoiser.steps,
        "glass_rgb": list(sections.glass_rgb),
    }


def _card(model: TrainedModel, settings: TrainingSettings) -> str:
    sections = settings.sections
    facts: dict[str, float | str] = {
        **model.figures,
        "ae_parameters": sum(p.numel() for p in model.vae.parameters()) / 1e6,
        "unet_parameters": sum(p.numel() for p in model.unet.parameters()) / 1e6,
        "guidance": settings.denoiser.guidance,
        "held_out": sections.held_out,
        "patch_mpp": sections.patch_mpp,
        "overview_mpp": round(sections.patch_mpp * sections.overview_factor, 6),
    }
    return model_card(facts)


def export_bundle(model: TrainedModel, settings: TrainingSettings, folder: Path) -> None:
    """Write the bundle beside ``folder`` and then put it in its place, in half precision."""
    import yaml

    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    for name, part in (("vae", model.vae), ("unet", model.unet)):
        half = copy.deepcopy(part).to(torch.float16, memory_format=torch.contiguous_format)
        half.save_pretrained(beside / name, safe_serialization=True)
    build_scheduler().save_pretrained(beside / "scheduler")
    text = yaml.safe_dump(bundle_description(model, settings), sort_keys=False, allow_unicode=True)
    (beside / "wsigen.yaml").write_text(text)
    (beside / "README.md").write_text(_card(model, settings))
    for file in beside.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
