"""``wsigen train tokens``: a dataset and a bundle that is told tokens -> the same bundle, which draws tokens itself.

ZoomLDM's conditioning diffusion model (Yellapragada et al. 2025, section 3.3)::

    x_0 = summariser(window of the grid, level)          frozen, of the bundle; not normalised: a LayerNorm is its last layer
    y_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps        cosine noise levels, t uniform
    L   = mean over tokens |x_0 - x_theta(y_t, t, level)|^2

The released one learns a variance besides, which DDIM without noise does not ask for: here nothing is learned of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsigen.base.errors import TrainingError
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.drawing import Drawer
from wsigen.grids.fitting import misfit
from wsigen.grids.grid import EncoderId
from wsigen.models.bundle import TOKEN_MODEL, check_bundle
from wsigen.models.card import BundleCard, GridCondition
from wsigen.models.network_config import TokenModelConfig
from wsigen.models.summariser import AnySummariser, load_summariser, summarise
from wsigen.models.token_model import TIMESTEPS, TokenModel, noise_levels, save_token_model
from wsigen.training.grid_settings import EncodedGrid, SummariserSettings
from wsigen.training.image_grids import ImageGrids, grid_key, image_grids
from wsigen.training.loop import Outcome, check_folder, train
from wsigen.training.processes import is_main, meet, processes
from wsigen.training.publish import whole_folder
from wsigen.training.recipes import TokenRecipe
from wsigen.training.snapshot import Identity, identity_of, model_key
from wsigen.training.task import Player, Task, Tensors

TURNS = 8
"""A window is told turned and mirrored, as the patches of a denoiser's training are."""


def make_tokens(recipe: TokenRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Train a network that draws tokens, and write ``out/bundle``, a copy of the recipe's with it, when all steps are done.

    Raises
    ------
    BundleError
        If the bundle cannot be used.
    TrainingError
        If it is told no tokens, or the dataset has other magnifications or another side of patches.
    """
    card, told = _told(recipe, dataset)
    check_folder(out, identity(recipe, dataset), resume)
    state = processes()
    grids = _grids(recipe, told, dataset, out, card.latent.factor, str(state.device))
    summariser = load_summariser(recipe.bundle, "cpu")
    torch.manual_seed(recipe.seed)
    network = new_token_model(_config(recipe, summariser, len(card.levels)))
    drawer = dataset.drawer("training", recipe.level_shares)
    task = TokenTask(recipe, network, summariser, told.parts, WindowStream(grids, drawer, recipe.seed))
    outcome = train(task, recipe.loop, out, identity(recipe, dataset), seed=recipe.seed, resume=resume)
    if outcome.result and is_main():
        with whole_folder(outcome.result) as beside:
            shutil.copytree(recipe.bundle, beside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(TOKEN_MODEL))
            save_token_model(network.cpu(), beside / TOKEN_MODEL)
            check_bundle(beside)
    return outcome


def identity(recipe: TokenRecipe, dataset: Dataset) -> Identity:
    """The settings and data that decide the weights; the bundle by what it holds."""
    data = f"{dataset.key} {grid_key(_settings(recipe, _told(recipe, dataset)[1]), dataset)}"
    return identity_of(recipe.decisive("bundle", "files", "grids") | {"told": model_key(recipe.bundle), "data": data})


def new_token_model(config: TokenModelConfig) -> TokenModel:
    """An untrained network, begun as DiT's are (Peebles & Xie 2023): every block adds nothing at first.

    Places are the sines and cosines of the released network, which are not learned.
    """
    network = TokenModel(config)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for name, weight in network.named_parameters():
        if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(weight)
        elif name.startswith("t_embedder") and name.endswith("weight"):
            nn.init.normal_(weight, std=0.02)
    network.pos_embed.data.copy_(_places(config.tokens, config.hidden)[None])
    network.pos_embed.requires_grad_(False)
    return network


class WindowStream:
    """Random windows of the grids of patches, of all levels, turned; see `dataset.crops.Stream`."""

    def __init__(self, grids: ImageGrids, drawer: Drawer, seed: int) -> None:
        self._grids, self._drawer, self._seed = grids, drawer, seed

    def batch(self, step: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return windows ``(B, D + 1, S, S)`` of a step (>= 0), smaller ones in the upper left corner, and levels ``(B,)``."""
        rows, windows = [], []
        for i in range(count):
            rng = np.random.default_rng((self._seed, step, i))
            row, _ = self._drawer.draw(rng)
            rows.append(row)
            windows.append(self._grids.window(row, int(rng.integers(TURNS))))
        return np.stack(windows), self._grids.patches.level[rows].astype(np.int64)


class TokenTask(Task):
    """See `task.Task`; one player, the network that draws tokens.

    Parameters
    ----------
    summariser : nn.Module
        Makes the tokens that are learned; it is not trained.
    parts : sequence of int
        Parts a side of the windows of each level.
    stream
        What `WindowStream` is.
    """

    name, result = "network of tokens", "bundle"
    columns: tuple[str, ...] = ()

    def __init__(
        self, recipe: TokenRecipe, network: TokenModel, summariser: AnySummariser, parts: tuple[int, ...], stream: Any
    ) -> None:
        self.recipe, self.network, self._summariser, self._parts, self._stream = recipe, network, summariser, parts, stream
        self._abar = torch.from_numpy(noise_levels()).float()

    def players(self) -> dict[str, Player]:
        """The network alone."""
        return {"model": Player(self.network, self.recipe.loop.learning_rate, self.recipe.loop.betas)}

    def draw(self, step: int, part: int) -> Tensors:
        """Windows, their levels, timesteps spread over the batch, and noise for their tokens."""
        loop, config = self.recipe.loop, self.network.config
        windows, levels = self._stream.batch(step * loop.parts + part, loop.part)
        rng = np.random.default_rng((self.recipe.seed, step, part, 1))
        times = ((np.arange(loop.part) + rng.random(loop.part)) / loop.part * TIMESTEPS).astype(np.int64)
        noise = rng.standard_normal((loop.part, config.tokens, config.width), dtype=np.float32)
        drawn = {"windows": windows, "levels": levels, "times": times, "noise": noise}
        return {name: torch.from_numpy(values) for name, values in drawn.items()}

    def loss(self, player: str, modules: Mapping[str, nn.Module], batch: Tensors, share: float) -> tuple[Tensor, Tensors]:
        """Mean squared error of the clean tokens; windows of which nothing is known have no part in it."""
        clean = self.tokens(batch["windows"], batch["levels"])
        abar = self._abar.to(clean.device)[batch["times"]][:, None, None]
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * batch["noise"]
        error = (modules["model"](noisy, batch["times"], batch["levels"]).float() - clean).square().mean(dim=(1, 2))
        told = (batch["windows"][:, -1].flatten(1).amax(dim=1) > 0).float()
        return (error * told).sum() / told.sum().clamp(min=1), {}

    @torch.no_grad()
    def tokens(self, windows: Tensor, levels: Tensor) -> Tensor:
        """Tokens ``(B, T, C)`` of windows of several levels, in full precision."""
        summariser = self._summariser.to(windows.device)
        clean = windows.new_zeros(len(windows), summariser.tokens, summariser.width)
        with torch.autocast(windows.device.type, enabled=False):
            for level in levels.unique().tolist():
                rows, side = (levels == level).nonzero()[:, 0], self._parts[level]
                clean[rows] = summarise(summariser, windows[rows, :, :side, :side], levels[rows])
        return clean

    def preview(self, device: Any) -> None:
        """Draw nothing: tokens are no picture; 'wsigen models tiles' draws pictures of them."""


def _told(recipe: TokenRecipe, dataset: Dataset) -> tuple[BundleCard, GridCondition]:
    """The bundle's card, and the grid that it says it is told."""
    card = check_bundle(recipe.bundle)
    if card.grid is None or card.grid.told != "tokens":
        raise TrainingError(f"{recipe.bundle}: is told no tokens; train its denoiser with 'grid: {{encoder: NAME}}'")
    theirs, ours = [level.mpp for level in card.levels], list(dataset.mpps)
    if theirs != ours:
        raise TrainingError(f"{recipe.bundle}: has levels of {theirs} um/px, the dataset of {ours}; give its own levels")
    crop_px = card.crop_latent * card.latent.factor
    if crop_px != dataset.settings.patch_px:
        raise TrainingError(
            f"{recipe.bundle}: has windows of {crop_px} px, the dataset of {dataset.settings.patch_px}; set patch_px"
        )
    return card, card.grid


def _settings(recipe: TokenRecipe, told: GridCondition) -> EncodedGrid:
    """How the grids of the images are made, as for the denoiser."""
    summariser = SummariserSettings(side=max(told.parts))
    if recipe.files is not None:
        return EncodedGrid(files=recipe.files, summariser=summariser)
    return EncodedGrid(encoder=told.encoder, cell_um=told.cell_um, encoder_mpp=told.encoder_mpp, summariser=summariser)


def _grids(recipe: TokenRecipe, told: GridCondition, dataset: Dataset, out: Path, factor: int, device: str) -> ImageGrids:
    """The grids of the training images, told as the bundle's card says."""
    state = processes()
    share = (state.process_index, state.num_processes)
    folder = recipe.grids or out / "grids"
    grids = image_grids(dataset, _settings(recipe, told), folder, factor, device=device, watch=_watch(), share=share, meet=meet)
    ours = grids.told
    fault = misfit(EncoderId(ours.encoder, ours.encoder_sha256), ours.cell_um or 0.0, told)
    if not fault and told.numbers != ours.numbers:
        fault = f"has {ours.numbers} numbers a cell; the model follows {told.numbers}"
    if fault:
        raise TrainingError(f"{recipe.files or folder}: a grid there {fault} (bundle {recipe.bundle})")
    return replace(grids, told=told)


def _watch() -> Callable[[int, int], None] | None:
    return (lambda done, count: print(f"grids: image {done} of {count}", flush=True)) if is_main() else None


def _config(recipe: TokenRecipe, summariser: AnySummariser, levels: int) -> TokenModelConfig:
    network = recipe.network
    return TokenModelConfig(
        tokens=summariser.tokens,
        width=summariser.width,
        levels=levels,
        hidden=network.hidden,
        depth=network.depth,
        heads=network.hidden // 64,
    )


def _places(tokens: int, width: int) -> Tensor:
    """Sines, then cosines of the place of each token ``(T, C)``."""
    rates = 1.0 / 10_000 ** (torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
