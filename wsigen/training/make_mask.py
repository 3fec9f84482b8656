"""``wsigen train mask``: dataset and recipe -> a mask model that draws layouts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from wsigen.base.classes import UNKNOWN
from wsigen.dataset.dataset import Dataset
from wsigen.layout.cleaning import touching
from wsigen.models.mask_bundle import CARD_NAME, MaskCard
from wsigen.training.denoiser import unet_of
from wsigen.training.loop import Outcome, train
from wsigen.training.mask_data import MaskData, MaskStream, read_maps
from wsigen.training.mask_task import MaskTask, build_mask_scheduler
from wsigen.training.processes import is_main
from wsigen.training.publish import save_card, save_network, whole_folder
from wsigen.training.recipes import MaskRecipe
from wsigen.training.snapshot import Identity, identity_of


def make_mask(recipe: MaskRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Draw the class maps of the training split's slides, train, and write ``out/mask`` when all steps are done."""
    return fit_mask(recipe, read_maps(recipe, dataset), out, resume=resume)


def fit_mask(recipe: MaskRecipe, data: MaskData, out: Path, *, resume: bool = False) -> Outcome:
    """Train on class maps and write ``out/mask`` when all steps are done.

    Raises
    ------
    TrainingError
        See `loop.train`.
    """
    glass = data.table.background
    padding = UNKNOWN if glass is None or recipe.padding == "unknown" else glass
    stream = MaskStream(data.examples, recipe.side, padding, recipe.seed)
    card = describe_mask(recipe, data)
    torch.manual_seed(recipe.seed)
    network = build_mask_network(recipe, len(data.table), len(data.subtypes))
    task = MaskTask(recipe, network, stream, card, data.table)
    outcome = train(task, recipe.loop, out, identity(recipe, data), seed=recipe.seed, resume=resume)
    if outcome.result and is_main():
        with whole_folder(outcome.result) as beside:
            save_network(network, beside / "unet")
            build_mask_scheduler().save_pretrained(str(beside / "scheduler"))
            save_card(card, beside, CARD_NAME)
    return outcome


def build_mask_network(recipe: MaskRecipe, classes: int, subtypes: int) -> nn.Module:
    """Build an untrained network; its embedding ``subtypes`` is the null condition."""
    return unet_of(recipe.network, recipe.side, classes, classes, subtypes + 1)


def describe_mask(recipe: MaskRecipe, data: MaskData) -> MaskCard:
    """Describe the mask model to be; which classes may touch is read from its training maps."""
    names = data.table.names
    pairs = touching((e.cells for e in data.examples), len(names))
    adjacent = [(names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names)) if pairs[i, j]]
    given = {"classes": names, "subtypes": data.subtypes, "adjacent": adjacent, "side": recipe.side, "cell_um": data.cell_um}
    return MaskCard.model_validate({**given, **recipe.sampling.model_dump()})


def identity(recipe: MaskRecipe, data: MaskData) -> Identity:
    """The settings and data that decide the weights."""
    return identity_of(recipe.decisive("sampling", "least_slides") | {"data": data.key, "cells": data.cell_um})
