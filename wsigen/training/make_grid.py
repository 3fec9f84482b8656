"""``wsigen train grid``: a dataset and a bundle that follows grids -> the same bundle, which draws them itself."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsigen.base.errors import TrainingError
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.latents import LatentBatch
from wsigen.grids.mean_colour import NAME
from wsigen.models.bundle import GRID, check_bundle
from wsigen.models.card import BundleCard, GridNetwork, make_card
from wsigen.training.autoencoder import load_pretrained
from wsigen.training.cells import CellStream, image_cells
from wsigen.training.conditions import Conditioner
from wsigen.training.denoiser import build_schedule, build_unet, fit_embeddings
from wsigen.training.denoiser_task import DenoiserTask, check_noise
from wsigen.training.grid_settings import GridTelling
from wsigen.training.grids import check_sides, coarser_cells, level_ratios, told_grid
from wsigen.training.loop import Outcome, check_folder, train
from wsigen.training.processes import is_main, meet, processes
from wsigen.training.publish import save_card, save_network, whole_folder
from wsigen.training.recipes import GridRecipe
from wsigen.training.snapshot import Identity, identity_of, model_key

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

SHOWN_PX = 8
"""px of a cell in sample pictures."""


class GridTask(DenoiserTask):
    """Training of a network whose latents are the cells of a grid."""

    name = "network of grids"


def make_grid(recipe: GridRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Train a network that draws grids, and write ``out/bundle``, a copy of the recipe's with it, when all steps are done.

    Raises
    ------
    BundleError
        If the bundle cannot be used.
    TrainingError
        If it follows no grids, or knows other classes than the dataset.
    """
    card = _card_with_network(recipe, dataset)
    check_noise(recipe, len(dataset.levels))
    drawing = card.drawing
    if drawing is None or card.grid is None:
        raise ValueError("a card without a network of grids")
    ratios = level_ratios(drawing.levels)
    check_sides("setting 'telling.cell_sides'", recipe.telling.cell_sides, card_side(card))
    check_sides(f"{recipe.dataset}: ratio of the um/px of two levels", ratios, card_side(card))
    check_folder(out, identity(recipe, dataset), resume)
    mean, std = (np.asarray(v, dtype=np.float32) for v in (card.grid.mean, card.grid.std))
    state, cell_px = processes(), card.latent.factor
    cells = image_cells(dataset, out / "cells", cell_px, (state.process_index, state.num_processes), meet)
    drawer = dataset.drawer("training", recipe.level_shares, recipe.unlabelled_share)
    side = dataset.settings.patch_px // cell_px
    stream = CellStream(cells, drawer, side, mean, std, recipe.stain_jitter, recipe.seed)
    torch.manual_seed(recipe.seed)
    unet, scheduler = build_unet(recipe.network, drawing, card_side(card)), build_schedule(recipe)
    if recipe.start is not None:
        _load_start(recipe.start, card, unet)
    conditioner = Conditioner(card.conditioning.kind, len(card.classes), len(drawing.levels), True)
    tell = partial(_tell, recipe.telling, ratios)
    show = partial(_shown, mean=mean, std=std)
    task = GridTask(recipe, recipe.sampling, unet, scheduler, conditioner, stream, show, tell, patch=recipe.network.patch)
    outcome = train(task, recipe.loop, out, identity(recipe, dataset), seed=recipe.seed, resume=resume)
    if outcome.result and is_main():
        _publish(recipe, card, unet, scheduler, outcome.result)
    return outcome


def identity(recipe: GridRecipe, dataset: Dataset) -> Identity:
    """The settings and data that decide the weights; of the bundle, what its card says of grids and classes."""
    card = check_bundle(recipe.bundle)
    told = card.model_dump(mode="json", include={"classes": True, "conditioning": True, "grid": {"encoder", "mean", "std"}})
    decisive = recipe.decisive("bundle", "start", "sampling", "stored", "larger")
    start = None if recipe.start is None else model_key(recipe.start / GRID)
    return identity_of(decisive | {"told": told, "start": start, "data": f"{dataset.key} {NAME} anywhere"})


def _load_start(start: Path, card: BundleCard, unet: nn.Module) -> None:
    """Give a network the weights of the one that a bundle draws its grids with (TrainingError if it draws others).

    A level begins as the start's that is nearest in um/px.
    """
    from diffusers import UNet2DModel

    held = check_bundle(start)
    drawing, theirs = card.drawing, held.drawing
    if drawing is None or theirs is None:
        raise TrainingError(f"{start}: draws no grids; leave 'start' out, or give a bundle that does")
    for what, a, b in (
        ("classes", theirs.table.names, drawing.table.names),
        ("means of cells", theirs.latent.mean, drawing.latent.mean),
        ("deviations of cells", theirs.latent.std, drawing.latent.std),
    ):
        if list(a) != list(b):
            raise TrainingError(
                f"{start}: its grids have the {what} {list(a)}, those to be drawn {list(b)}; train without 'start'"
            )
    try:
        loaded = load_pretrained(UNet2DModel, start / GRID / "unet")
        fit_embeddings(loaded, drawing, theirs)
        unet.load_state_dict(loaded.state_dict())
    except RuntimeError:
        raise TrainingError(
            f"{start}: its network of grids is another one than 'network' describes; give its settings"
        ) from None


def card_side(card: BundleCard) -> int:
    """Side of the smallest windows of a card's network of grids, cells."""
    return card.grid.network.crops[-1] if card.grid and card.grid.network else card.crop_latent


def _card_with_network(recipe: GridRecipe, dataset: Dataset) -> BundleCard:
    """The bundle's card, with what the network to be trained is."""
    card = check_bundle(recipe.bundle)
    if card.grid is None:
        raise TrainingError(f"{recipe.bundle}: follows no grids; train its denoiser with 'grid:' in the recipe")
    if card.grid.encoder != NAME:
        raise TrainingError(f"{recipe.bundle}: follows grids of encoder {card.grid.encoder!r}; only {NAME} is drawn")
    if card.conditioning.kind not in ("class-map", "none"):
        raise TrainingError(f"{recipe.bundle}: conditioning {card.conditioning.kind!r}; grids are drawn from class maps alone")
    theirs, ours = [c.name for c in card.classes], list(dataset.table.names)
    if card.conditioning.kind == "class-map" and theirs != ours:
        raise TrainingError(f"{recipe.bundle}: knows the classes {', '.join(theirs)}, the dataset {', '.join(ours)}")
    side = dataset.settings.patch_px // card.latent.factor
    sides = [side * times for times in (4, 2, 1) if times <= recipe.larger] + ([side // 2] if recipe.quarter_share else [])
    network = GridNetwork(
        levels=dataset.levels,
        crops=tuple(sides),
        patch=recipe.network.patch,
        **recipe.sampling.model_dump(),
    )
    sizes = [level.mpp for level in (network.levels[0], card.levels[0])]
    ratio = sizes[0] / sizes[1] if sizes[0] and sizes[1] else 1.0
    if round(ratio) not in card.grid.cell_sides:
        known = ", ".join(str(side) for side in card.grid.cell_sides)
        raise TrainingError(
            f"{recipe.dataset}: the finest cells are {ratio:g} times as wide as latent px of {recipe.bundle}, whose denoiser "
            f"was told sides of {known}; train it with 'cell_sides', or draw finer cells"
        )
    drawn = card.model_copy(update={"grid": card.grid.model_copy(update={"network": network})})
    return make_card(drawn.model_dump(mode="json"), str(recipe.bundle))


def _tell(telling: GridTelling, ratios: list[int], batch: LatentBatch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cells, and the next coarser ones that they are told with."""
    cells = torch.from_numpy(batch.latents)
    coarse, possible = coarser_cells(cells, batch.levels, ratios)
    return cells, told_grid(coarse, possible, telling, rng)


def _shown(cells: Tensor, mean: NDArray[np.float32], std: NDArray[np.float32]) -> Tensor:
    """Standardised cells (B, 3, p, p) as pictures in [-1, 1]."""
    shift, scale = (torch.from_numpy(v).to(cells).view(1, -1, 1, 1) for v in (mean, std))
    colours = cells * scale + shift
    return colours.repeat_interleave(SHOWN_PX, dim=2).repeat_interleave(SHOWN_PX, dim=3)


def _publish(recipe: GridRecipe, card: BundleCard, unet: nn.Module, scheduler: DDIMScheduler, folder: Path) -> None:
    """Write the bundle with its network of grids, whole or not at all."""
    with whole_folder(folder) as beside:
        shutil.copytree(recipe.bundle, beside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(GRID))
        save_network(unet, beside / GRID / "unet", recipe.stored)
        scheduler.save_pretrained(str(beside / GRID / "scheduler"))
        save_card(card, beside)
        check_bundle(beside)
