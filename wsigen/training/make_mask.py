"""``wsigen train mask``: dataset and recipe -> a mask model that draws layouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsigen.base.classes import UNKNOWN
from wsigen.training.loop import Outcome, train
from wsigen.training.mask_data import MaskData, read_maps
from wsigen.training.mask_export import describe_mask, export_mask
from wsigen.training.mask_maps import MaskStream, check_maps
from wsigen.training.mask_model import MaskTask, build_mask_network
from wsigen.training.mask_recipe import MaskRecipe
from wsigen.training.processes import is_main
from wsigen.training.snapshot import Identity, identity_of

if TYPE_CHECKING:
    from wsigen.dataset.dataset import Dataset


def make_mask(recipe: MaskRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Draw the class maps of the training split's slides, train, and write ``out/mask`` when all steps are done."""
    return train_mask(recipe, read_maps(recipe, dataset), out, resume=resume)


def train_mask(recipe: MaskRecipe, data: MaskData, out: Path, *, resume: bool = False) -> Outcome:
    """Train on class maps and write ``out/mask`` when all steps are done.

    Raises
    ------
    ConfigError
        If there is no map, or one holds a class or subtype that is not the data's.
    TrainingError
        See `loop.train`.
    """
    import torch

    check_maps(data.examples, len(data.table), len(data.subtypes))
    glass = data.table.background
    padding = UNKNOWN if glass is None or recipe.padding == "unknown" else glass
    stream = MaskStream(data.examples, recipe.side, padding, recipe.seed)
    card = describe_mask(recipe, data)
    torch.manual_seed(recipe.seed)
    network = build_mask_network(recipe.network, recipe.side, len(data.table), len(data.subtypes))
    task = MaskTask(recipe, network, stream, card, data.table)
    outcome = train(task, recipe.loop, out, identity(recipe, data), seed=recipe.seed, resume=resume)
    if outcome.finished and is_main():
        export_mask(network.cpu(), card, out)
    return outcome


def identity(recipe: MaskRecipe, data: MaskData) -> Identity:
    """The settings and data that decide the weights."""
    settings = recipe.model_dump(mode="json", exclude={"loop", "dataset", "sampling", "least_slides"})
    return identity_of(settings | {"loop": recipe.loop.identity(), "data": data.key, "cells": data.cell_um})
