"""``wsigen train denoiser``: dataset, autoencoder and recipe -> a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsigen.base.classes import ClassTable
from wsigen.base.errors import TrainingError, refusing
from wsigen.base.json_file import read_json
from wsigen.dataset.crops import Stream
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.latents import LatentBatch, LatentCache, cache_latents
from wsigen.dataset.summary import trained_on
from wsigen.models.bundle import SUMMARISER
from wsigen.models.card import BundleCard, GridCondition, Level, TrainedOn
from wsigen.models.loading import load_text
from wsigen.models.network_config import read_config
from wsigen.models.summariser import AnySummariser, build_summariser, load_summariser
from wsigen.training.autoencoder import Vae, channels_of, decoder_of, encoder_of, factor_of, load_vae
from wsigen.training.autoencoder_task import FIGURES
from wsigen.training.conditions import Conditioner, embed_prompts
from wsigen.training.denoiser import build_schedule, build_unet, latent_scale_of, load_unet, own_card, with_known_cells
from wsigen.training.denoiser_task import DenoiserTask, Telling, check_noise
from wsigen.training.grid_settings import EncodedGrid
from wsigen.training.grids import check_sides, told_grid, with_cells, worn_windows
from wsigen.training.image_grids import ImageGrids, grid_key, image_grids
from wsigen.training.loop import Outcome, check_folder, train
from wsigen.training.processes import is_main, meet, processes
from wsigen.training.publish import TrainedParts, describe_bundle, publish_bundle
from wsigen.training.recipes import DenoiserRecipe
from wsigen.training.snapshot import Identity, identity_of, model_key, weights_key


@dataclass(frozen=True, eq=False)
class LatentData:
    """What a denoiser is trained on.

    Attributes
    ----------
    mean, std : float32 [C] of the latents before they were standardised
    side : of the crops, in latent px
    key : identifies dataset and autoencoder
    trained_on : for the card
    grid : what the card says of the grid that batches hold, if they hold any
    """

    stream: Stream[LatentBatch]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    table: ClassTable
    levels: tuple[Level, ...]
    side: int
    key: str
    trained_on: TrainedOn | None = None
    grid: GridCondition | None = None


def make_denoiser(recipe: DenoiserRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Encode the training split of a dataset once, train, and write ``out/bundle`` when all steps are done.

    ``out`` also gets the latents, the checkpoint, the losses and sample grids.
    """
    _check_classes(recipe, dataset)
    check_noise(recipe, len(dataset.levels))
    vae = load_vae(recipe.autoencoder)
    if recipe.grid:
        crop = dataset.settings.patch_px // factor_of(vae) // (2 if recipe.quarter_share else 1)
        check_sides("setting 'grid.cell_sides'", recipe.grid.cell_sides, crop)
    # Latents of another dataset are replaced: first be sure that they are wanted.
    check_folder(out, identity(recipe, data_key(recipe, dataset, vae)), resume)
    return fit_denoiser(recipe, encoded(recipe, dataset, vae, out), vae, out, resume=resume)


def fit_denoiser(recipe: DenoiserRecipe, data: LatentData, vae: Vae, out: Path, *, resume: bool = False) -> Outcome:
    """Train on latents and write ``out/bundle`` when all steps are done."""
    channels = channels_of(vae)
    mean, std = ([float(x) for x in v[:channels]] for v in (data.mean, data.std))
    described = (data.table, data.levels, mean, std, factor_of(vae), data.side, data.grid, data.trained_on)
    card = describe_bundle(recipe.bundle, recipe.conditioning, *described)
    folder = recipe.text or recipe.start
    text = load_text(folder, "cpu") if recipe.conditioning.kind == "text" and folder else None
    scheduler = build_schedule(recipe)
    unet, summariser, conditioner = _networks(recipe, card, text)
    tell = _telling(recipe.grid, channels)
    decoder = decoder_of(vae, mean, std)
    task = DenoiserTask(recipe, recipe.bundle, unet, scheduler, conditioner, data.stream, decoder, tell, summariser)
    outcome = train(task, recipe.loop, out, identity(recipe, data.key), seed=recipe.seed, resume=resume)
    if outcome.result and is_main():
        figures = {k: v for k, v in outcome.scalars.items() if k not in ("rate", "gradient")}
        figures = {"steps": float(outcome.step), **figures, **_figures_of(recipe.autoencoder)}
        parts = TrainedParts(vae, unet, scheduler, figures, text, summariser)
        publish_bundle(parts, card, outcome.result, recipe.bundle.stored)
    return outcome


def grid_condition(mean: NDArray[np.float32], std: NDArray[np.float32], sides: Sequence[int]) -> GridCondition:
    """What a card says of the mean colours that a denoiser is told, in cells of ``sides`` latent px."""
    rounded = {name: [round(float(v), 6) for v in values] for name, values in (("mean", mean), ("std", std))}
    return GridCondition.model_validate({**rounded, "cell_sides": sorted(set(sides))})


def _telling(grid: EncodedGrid | None, channels: int) -> Telling | None:
    """How batches hold a grid: as channels behind the latents, or as windows beside them."""
    if grid is None:
        return None
    return partial(_tell_windows, grid) if grid.encoded else partial(_tell_cells, grid, channels)


def _tell_cells(telling: EncodedGrid, channels: int, batch: LatentBatch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Latents, and the cells that lie behind them as the grid they are told with."""
    both = torch.from_numpy(batch.latents)
    return both[:, :channels], told_grid(both[:, channels:], np.ones(len(both), dtype=bool), telling, rng)


def _tell_windows(telling: EncodedGrid, batch: LatentBatch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Latents, and the windows that lie beside them."""
    if batch.windows is None:
        raise ValueError("latents without windows of a grid")
    return torch.from_numpy(batch.latents), worn_windows(torch.from_numpy(batch.windows), telling, rng)


def _networks(
    recipe: DenoiserRecipe, card: BundleCard, text: tuple[Any, Any] | None
) -> tuple[nn.Module, AnySummariser | None, Conditioner]:
    kind, classes, levels = recipe.conditioning.kind, len(card.classes), len(card.levels)
    prompts = None if text is None else embed_prompts(card, *text)
    torch.manual_seed(recipe.seed)
    width = _token_width(recipe, prompts)
    if recipe.start:
        unet = load_unet(recipe.start, card, width)
    else:
        unet = build_unet(recipe.network, card, card.crop_latent // (2 if recipe.quarter_share else 1), width)
    knows_levels = kind in ("class-map", "none") or getattr(unet.config, "num_class_embeds", None) == levels
    parts = card.grid.parts if card.grid else ()
    conditioner = Conditioner(kind, classes, levels, knows_levels and kind != "class-tokens", prompts, parts)
    return unet, _summariser(recipe, card), conditioner


def _token_width(recipe: DenoiserRecipe, prompts: Tensor | None) -> int:
    """Numbers of the tokens that the network attends to: of prompts, of a grid, or of both (0: it attends to none)."""
    widths = [] if prompts is None else [int(prompts.shape[-1])]
    widths += [recipe.summariser.width] if recipe.summariser else []
    if len(set(widths)) > 1:
        raise TrainingError(f"the text encoder gives tokens of {widths[0]} numbers: set grid.summariser.width to it")
    return widths[0] if widths else 0


def _summariser(recipe: DenoiserRecipe, card: BundleCard) -> AnySummariser | None:
    """The summariser of the start, if it has one, else a new one."""
    if recipe.summariser is None or card.grid is None:
        return None
    config = recipe.summariser.config(card.grid.numbers, len(card.levels))
    if recipe.start is None or not (recipe.start / SUMMARISER).is_dir():
        return build_summariser(config)
    held = read_config(recipe.start, SUMMARISER)
    if held != config:
        differing = next(key for key in config if held.get(key) != config[key])
        raise TrainingError(
            f"{recipe.start}: its summariser has {differing} {held.get(differing)!r}, the recipe asks for {config[differing]!r}"
        )
    return load_summariser(recipe.start, "cpu").requires_grad_(True)


def _figures_of(autoencoder: Path) -> dict[str, float]:
    """What ``wsigen train autoencoder`` measured on held-out images, if it trained this one."""
    file = autoencoder / FIGURES
    if not file.is_file():
        return {}
    with refusing(TrainingError, f"{file}: not figures of a training", "remove it"):
        return {f"autoencoder_{name}": float(value) for name, value in read_json(file, TrainingError).items()}


def encoded(recipe: DenoiserRecipe, dataset: Dataset, vae: Vae, out: Path) -> LatentData:
    """Encode what is not in ``out/latents`` yet, each process its share, and open a stream of it."""
    scale = scale_of_start(recipe, vae)
    state, factor = processes(), factor_of(vae)
    encode = encoder_of(vae, state.device, recipe.loop.precision)
    share = (state.process_index, state.num_processes)
    grids = None
    if recipe.grid and recipe.grid.encoded:
        watch = _says("grids: image") if is_main() else None
        how: dict[str, Any] = {"device": str(state.device), "watch": watch, "share": share, "meet": meet}
        grids = image_grids(dataset, recipe.grid, out / "grids", factor, **how)
    cache = cache_latents(
        dataset,
        with_cells(encode, factor) if recipe.grid and not recipe.grid.encoded else encode,
        out / "latents",
        encoder_key(recipe, vae),
        variants=recipe.latent_variants,
        jitter=recipe.stain_jitter,
        cell_px=factor,
        batch=4,
        replacing=grids is None,
        watch=_says("latents: block") if is_main() else None,
        share=share,
        meet=meet,
    )
    cache, told = _as_the_start_knows(recipe, cache, grids, channels_of(vae), scale)
    window = None if grids is None or told is None else replace(grids, told=told).window
    drawn = (recipe.level_shares, recipe.unlabelled_share, recipe.one_class_of_a_crop)
    stream = cache.stream(recipe.seed, *drawn, window=window)
    side = dataset.settings.patch_px // factor
    key, counted = data_key(recipe, dataset, vae), trained_on(dataset)
    return LatentData(stream, cache.mean, cache.std, dataset.table, dataset.levels, side, key, counted, told)


def _as_the_start_knows(
    recipe: DenoiserRecipe, cache: LatentCache, grids: ImageGrids | None, channels: int, scale: NDArray[np.float32] | None
) -> tuple[LatentCache, GridCondition | None]:
    """Latents and cells standardised as the start's network knows them, else as measured; and what the card says of the grid.

    ``scale`` is that of the latents' ``channels`` (`scale_of_start`).
    """
    mean, std = cache.mean.copy(), cache.std.copy()
    if scale is not None:
        mean[:channels], std[:channels] = scale
    measured = grids.told if grids else None
    if recipe.grid and grids is None:
        measured = grid_condition(mean[channels:], std[channels:], recipe.grid.cell_sides)
    told = with_known_cells(measured, own_card(recipe.start)) if measured and recipe.start else measured
    if told and told is not measured and grids is None:
        mean[channels:], std[channels:] = told.mean, told.std
    return replace(cache, mean=mean, std=std), told


def _says(what: str) -> Callable[[int, int], None]:
    return lambda done, count: print(f"{what} {done} of {count}", flush=True)


def scale_of_start(recipe: DenoiserRecipe, vae: Vae) -> NDArray[np.float32] | None:
    """A network that training begins at knows latents as they were standardised for it (see `denoiser.latent_scale_of`)."""
    if recipe.start is None:
        return None
    scale = latent_scale_of(recipe.start, vae)
    if scale is None:
        print(
            f"note: {recipe.start} does not hold the autoencoder of the recipe: latents are standardised on the dataset, to "
            "which its network has to get used",
            flush=True,
        )
    return scale


def _check_classes(recipe: DenoiserRecipe, dataset: Dataset) -> None:
    """Find, before anything is encoded, the classes that a denoiser told one class of a crop could never learn."""
    if not recipe.one_class_of_a_crop:
        return
    learned = dataset.drawer("training", recipe.level_shares, recipe.unlabelled_share, True).drawn
    present = dataset.drawer("training", recipe.level_shares, recipe.unlabelled_share).drawn
    for label in sorted(set().union(*present)):
        without = [level for level in range(len(learned)) if label in present[level] - learned[level]]
        problem = f"class {dataset.table.names[label]!r} fills half of no patch"
        if not any(label in of_level for of_level in learned):
            raise TrainingError(
                f"{problem}: conditioning {recipe.conditioning.kind!r} tells one class of a patch and would never tell this "
                "one; use conditioning class-map, a smaller patch_px, or leave the class out"
            )
        for level in without:
            print(f"note: {problem} of level {level}: its condition is not trained there", flush=True)


def identity(recipe: DenoiserRecipe, key: str) -> Identity:
    """The settings and data that decide the weights; models by what they hold, wherever they lie."""
    models = {"start": model_key(recipe.start), "text": model_key(recipe.text)}
    return identity_of(recipe.decisive("autoencoder", "bundle") | models | {"data": key})


def data_key(recipe: DenoiserRecipe, dataset: Dataset, vae: nn.Module) -> str:
    """Name the dataset and what encoded it."""
    grids = f" {grid_key(recipe.grid, dataset)}" if recipe.grid and recipe.grid.encoded else ""
    return f"{dataset.key} {encoder_key(recipe, vae)}{grids}"


def encoder_key(recipe: DenoiserRecipe, vae: nn.Module) -> str:
    """Name the autoencoder's weights and the precision they encoded in."""
    return f"{weights_key(vae)} {recipe.loop.precision}{' mean-colour' if recipe.grid and not recipe.grid.encoded else ''}"
