"""What a training publishes, whole or not at all: a network's folder, or a bundle that ``wsigen.generate`` takes at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wsigen.base.classes import ClassTable
from wsigen.base.errors import TrainingError
from wsigen.models.card import CARD_NAME, BundleCard, Conditioning, GridCondition, Level, TrainedOn, make_card
from wsigen.models.write_card import card_text
from wsigen.storage import files
from wsigen.training.recipes import BundleSettings, Stored

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

    from wsigen.models.summariser import AnySummariser
    from wsigen.training.autoencoder import Vae

_README = """# {name}: {title}

A latent diffusion model of histological images, trained with wsigen.

**Not for:** {not_for}

Licence: {licence}.

## Training data

{data}

{counts}

## Classes and levels

{classes}

{levels}

Conditioning: {kind}. Crops of {crop} latent px ({crop_px} px). Prediction: {prediction}.

## Figures of the training

{figures}

    wsigen generate slide.ome.tiff --model PATH/OF/THIS/FOLDER --class "{example}" --size 4096x4096
"""


MOST_ALTERED = 0.05
"""Largest relative error of a tensor in float8. The default model's denoiser, whose layers are altered by 3 to 4 %, predicts
within 1 % of itself, where its own error is some 50 %."""


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``folder``, or nothing does (`files.whole_folder`).

    Its configs say no more where networks were loaded from.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    try:
        with files.whole_folder(folder) as beside:
            yield beside
            _forget_origins(beside)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); the checkpoint is kept: resume") from None


def _forget_origins(folder: Path) -> None:
    """Take out of configs where a network was loaded from: folders of the machine that trained it are nobody's business."""
    for config in folder.rglob("*config.json"):
        try:
            content = json.loads(config.read_bytes())
        except (ValueError, RecursionError):
            continue  # a file of the user's, of no network
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_card(card: Any, folder: Path, name: str = CARD_NAME) -> None:
    """Write a card (a pydantic model) as YAML."""
    (folder / name).write_text(card_text(card), encoding="utf-8")


def save_network(network: Any, folder: Path, stored: Stored = "float32") -> None:
    """Write a diffusers network from the CPU, in the order of memory that safetensors stores.

    In ``float8`` (E4M3: three bits of fraction, steps of 1/512 below 1/64, at most 448) all tensors of weights are stored but
    those that it alters by more than `MOST_ALTERED`, as of very wide layers; these, biases and norms in float16.
    """
    plain = copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format)
    if stored != "float32":
        plain = plain.half()
    if stored == "float8":
        kind = torch.float8_e4m3fn
        for parameter in plain.parameters():
            exact, short = parameter.data.float(), parameter.data.to(kind)
            if parameter.ndim > 1 and (short.float() - exact).norm() <= MOST_ALTERED * exact.norm():
                parameter.requires_grad_(False).data = short
    plain.save_pretrained(str(folder), safe_serialization=True)


def describe_bundle(
    settings: BundleSettings,
    conditioning: Conditioning,
    table: ClassTable,
    levels: Sequence[Level],
    mean: Sequence[float],
    std: Sequence[float],
    factor: int,
    crop_latent: int,
    grid: GridCondition | None = None,
    trained_on: TrainedOn | None = None,
) -> BundleCard:
    """Build the card from the recipe's words, the dataset's classes, levels and counts, and the latents' scale and factor."""
    content = {
        "format": 1,
        **settings.model_dump(mode="json", exclude={"stored"}, exclude_none=True),
        "trained_on": None if trained_on is None else trained_on.model_dump(mode="json"),
        "classes": [{"name": c.name, "color": list(c.color), "background": c.background} for c in table],
        "levels": [level.model_dump(mode="json") for level in levels],
        "conditioning": conditioning.model_dump(mode="json"),
        "latent": {
            "channels": len(mean),
            "factor": factor,
            "mean": [round(float(v), 6) for v in mean],
            "std": [round(float(v), 6) for v in std],
            "image_range": [-1.0, 1.0],
        },
        "crop_latent": crop_latent,
        "grid": None if grid is None else grid.model_dump(mode="json"),
    }
    return make_card(content, "bundle")


@dataclass(frozen=True)
class TrainedParts:
    """What a bundle is made of; ``text`` is (tokenizer, text encoder) for prompts, ``figures`` go into the README.

    ``summariser`` is that of a grid that is told by tokens.
    """

    vae: Vae
    unet: nn.Module
    scheduler: DDIMScheduler
    figures: dict[str, float]
    text: tuple[Any, Any] | None = None
    summariser: AnySummariser | None = None


def publish_bundle(parts: TrainedParts, card: BundleCard, folder: Path, stored: Stored = "float32") -> None:
    """Write the bundle beside ``folder``, check it, and then put it in its place.

    Raises
    ------
    BundleError
        If the parts do not fit the card.
    TrainingError
        If it cannot be written.
    """
    from wsigen.models.bundle import SUMMARISER, check_bundle
    from wsigen.models.summariser import save_summariser

    with whole_folder(folder) as beside:
        half: Stored = "float32" if stored == "float32" else "float16"  # what an autoencoder loses is seen in every px
        save_network(parts.vae, beside / "vae", half)
        save_network(parts.unet, beside / "unet", stored)
        parts.scheduler.save_pretrained(str(beside / "scheduler"))
        if parts.text is not None:
            tokenizer, encoder = parts.text
            tokenizer.save_pretrained(str(beside / "tokenizer"))
            encoder.save_pretrained(str(beside / "text_encoder"), safe_serialization=True)
        if parts.summariser is not None:
            save_summariser(parts.summariser, beside / SUMMARISER, half=half == "float16")
        save_card(card, beside)
        (beside / "README.md").write_text(_readme(parts, card), encoding="utf-8")
        check_bundle(beside)


def _readme(parts: TrainedParts, card: BundleCard) -> str:
    sources = [f"- {d.name}: {d.attribution}, {d.url or d.doi}, licence {d.licence}" for d in card.training_data]
    return _README.format(
        name=card.name,
        title=card.title,
        not_for=card.not_for,
        licence=card.licence,
        data="\n".join(sources) or "Not said.",
        counts="Not counted." if card.trained_on is None else _counted(card.trained_on),
        classes="\n".join(f"- {c.name}{' (background)' if c.background else ''}" for c in card.classes),
        levels="\n".join(f"- level {level.name}: {level.mpp or 'unknown'} um/px" for level in card.levels),
        kind=card.conditioning.kind + (f", and a grid of {card.grid.encoder} by {card.grid.told}" if card.grid else ""),
        crop=card.crop_latent,
        crop_px=card.crop_latent * card.latent.factor,
        prediction=parts.scheduler.config["prediction_type"],
        figures="\n".join(f"- {name}: {value:.5g}" for name, value in parts.figures.items()) or "None.",
        example=next((c.name for c in card.classes if not c.background), card.classes[0].name),
    )


def _counted(data: TrainedOn) -> str:
    """What was counted of the training data, as Markdown."""
    groups = f" of {data.groups} groups; {data.held_out_groups} groups were held out" if data.groups else ""
    lines = [f"{data.images} images{groups}. Dataset {data.dataset[:16]}.", ""]
    lines += ["| level | class | patches | images |", "|---|---|---|---|"]
    for level, classes in data.levels.items():
        lines += [f"| {level} | {name} | {n.patches} | {n.images} |" for name, n in classes.items()]
    return "\n".join(lines)
