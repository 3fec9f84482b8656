"""The mask model in training: a diffusion model of whole slides' class maps (DiffInfinite, section 3.2, appendix E).

::

    x_0 = +1 where the class is, -1 elsewhere, one channel a class       (the paper: one channel of indices through a VAE)
    y_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps
    L   = mean over known cells |v - v_theta(y_t, t, c)|^2,   v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0

with c the slide's subtype, or the null condition with probability p_unc. A cell of unknown class is 0 in every channel
and takes no part in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.dataset.summary import paint
from wsigen.layout.cleaning import touching
from wsigen.models.mask_bundle import CARD_NAME, FOLDER, MaskCard
from wsigen.models.mask_sampling import MaskNetwork, draw_cells
from wsigen.training.denoiser import unet_of
from wsigen.training.denoiser_task import Noising
from wsigen.training.loop import Outcome, train
from wsigen.training.mask_data import MaskData, MaskStream, read_maps
from wsigen.training.processes import is_main
from wsigen.training.publish import save_card, save_network, whole_folder
from wsigen.training.recipes import MaskRecipe
from wsigen.training.snapshot import Identity, identity_of
from wsigen.training.task import Player, Task, Tensors

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

    from wsigen.dataset.dataset import Dataset

PREVIEWED, PREVIEW_STEPS, PREVIEW_PX = 6, 20, 2
"""Maps of a subtype in a sample grid, their most DDIM transitions, and the side of a cell there."""


def make_mask(
    recipe: MaskRecipe, dataset: Dataset, out: Path, *, resume: bool = False, say: Callable[[str], None] | None = None
) -> Outcome:
    """Read the class maps of a dataset's training split, say what they are, and train on them."""
    data = read_maps(recipe, dataset)
    if say:
        say(data.describe(recipe.side))
    return fit_mask(recipe, data, out, resume=resume)


def fit_mask(recipe: MaskRecipe, data: MaskData, out: Path, *, resume: bool = False) -> Outcome:
    """Train on class maps and write ``out/mask`` when all steps are done (TrainingError: see `loop.train`)."""
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


def build_mask_scheduler() -> DDIMScheduler:
    """The schedule the mask model is trained and sampled with: cosine, v, x0 within [-1, 1]."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
        clip_sample_range=1.0,
        timestep_spacing="trailing",
    )


class MaskTask(Task):
    """See `task.Task`; one player, the U-Net.

    Parameters
    ----------
    card : MaskCard
        Of the model to be: its classes and subtypes by index, and how sample grids are drawn and cleaned.
    table : ClassTable
        The classes' colours.
    """

    name, result = "mask model", FOLDER
    columns: tuple[str, ...] = ()

    def __init__(self, recipe: MaskRecipe, network: nn.Module, stream: MaskStream, card: MaskCard, table: ClassTable) -> None:
        self.recipe, self.network, self._stream, self._card, self._table = recipe, network, stream, card, table
        self._scheduler = build_mask_scheduler()
        self._noising = Noising(self._scheduler)

    def players(self) -> dict[str, Player]:
        """The U-Net alone."""
        loop = self.recipe.loop
        return {"model": Player(self.network, loop.learning_rate, loop.betas)}

    def draw(self, step: int, part: int) -> Tensors:
        """Noisy one-hot maps, their targets, which cells are known, and subtypes, some of them taken away."""
        loop, subtypes = self.recipe.loop, len(self._card.subtypes)
        batch = self._stream.batch(step * loop.parts + part, loop.part)
        rng = np.random.default_rng((self.recipe.seed, step, part, 1))
        cells = torch.from_numpy(batch.cells)
        noisy, steps, target = self._noising(one_hot(cells, len(self._card.classes)), rng)
        hidden = rng.random(loop.part) < self.recipe.p_unc
        conditions = torch.from_numpy(np.where(hidden, subtypes, batch.subtypes))
        return {"noisy": noisy, "steps": steps, "target": target, "known": cells != UNKNOWN, "conditions": conditions}

    def loss(self, player: str, modules: Mapping[str, nn.Module], batch: Tensors, share: float) -> tuple[Tensor, Tensors]:
        """Mean squared error of v over the known cells."""
        v = modules["model"](batch["noisy"], batch["steps"], class_labels=batch["conditions"], return_dict=False)[0]
        error = (v.float() - batch["target"]).square() * batch["known"][:, None]
        return error.sum() / (batch["known"].sum() * v.shape[1]).clamp(min=1), {}

    def preview(self, device: Any) -> NDArray[np.uint8]:
        """Cleaned maps, a row per subtype, the last one without a condition."""
        network = MaskNetwork(self.network, self._scheduler.alphas_cumprod.double().numpy(), "v_prediction")
        shape, card = (self.recipe.side, self.recipe.side), self._card
        steps = min(PREVIEW_STEPS, card.steps)
        rows = [
            np.concatenate([draw_cells(network, card, c, shape, seed, steps) for seed in range(PREVIEWED)], axis=1)
            for c in range(len(card.subtypes) + 1)
        ]
        cells = np.concatenate(rows).repeat(PREVIEW_PX, axis=0).repeat(PREVIEW_PX, axis=1)
        return paint(cells, self._table)


def one_hot(cells: Tensor, classes: int) -> Tensor:
    """Class maps uint8 ``[B, h, w]`` -> float32 ``[B, classes, h, w]``: +1, -1, and 0 where the class is unknown."""
    known = cells != UNKNOWN
    hot = functional.one_hot(torch.where(known, cells, 0).long(), classes).permute(0, 3, 1, 2).float()
    return (2.0 * hot - 1.0) * known[:, None]
