"""A trained mask model on disk: the folder ``mask`` that ``wsigen generate --mask-model`` takes, alone or in a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from wsigen.base.errors import TrainingError
from wsigen.layout.cleaning import touching
from wsigen.models.mask_bundle import CARD_NAME, FOLDER, MaskCard
from wsigen.training.mask_data import MaskData
from wsigen.training.mask_model import build_mask_scheduler
from wsigen.training.mask_recipe import MaskRecipe
from wsigen.training.publish import replace_folder


def describe_mask(recipe: MaskRecipe, data: MaskData) -> MaskCard:
    """Describe the mask model to be; which classes may touch is read from its training maps."""
    names = data.table.names
    pairs = touching((e.cells for e in data.examples), len(names))
    adjacent = [(names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names)) if pairs[i, j]]
    given = {"classes": names, "subtypes": data.subtypes, "adjacent": adjacent, "side": recipe.side, "cell_um": data.cell_um}
    return MaskCard.model_validate({**given, **recipe.sampling.model_dump()})


def export_mask(network: Any, card: MaskCard, parent: Path) -> Path:
    """Write ``parent/mask``, whole or not at all, in place of an older one; returns it.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    folder, beside = parent / FOLDER, parent / f".{FOLDER}.new"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        network.save_pretrained(str(beside / "unet"), safe_serialization=True)
        build_mask_scheduler().save_pretrained(str(beside / "scheduler"))
        text = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (beside / CARD_NAME).write_text(text, encoding="utf-8")
        replace_folder(beside, folder)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); the checkpoint is kept: resume") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder
