"""Wall time of a training step over the model's bare forward and backward pass, for the denoiser and the autoencoder.

Both read as a training does: the denoiser a dataset's cached latents in zarr, the autoencoder crops of its images.

Blocks of ten steps of the real loop (batches, noise, optimiser, running mean, losses to disk) take turns with blocks of ten
bare passes on a batch that lies ready, as load and clock rates change within a minute. The value is the median over the
blocks; the first pair warms up. At most 1.11 means that the loop reaches 0.9 of the bare passes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figure import Figure, Options, spread

if TYPE_CHECKING:
    from wsigen.models.card import BundleCard
    from wsigen.training.recipes import LoopSettings

BLOCK, TARGET = 10, 1 / 0.9
CLASSES, LEVELS, CHANNELS, SIDE, TILE, PIXELS = 5, 2, 8, 32, 1024, 128
WORDS = {"name": "b", "title": "b", "licence": "CC0-1.0", "not_for": "b"}


def make_dataset(folder: Path) -> Any:
    """Write tiles of stained noise, two of each class, and open them as a dataset."""
    from PIL import Image

    from wsigen.dataset.dataset import open_dataset
    from wsigen.dataset.settings import DatasetSettings

    rng = np.random.default_rng(0)
    names = [f"class {i}" for i in range(CLASSES)]
    for name in names:
        (folder / "tiles" / name).mkdir(parents=True)
        for i in range(2):
            amount = 0.3 + rng.random((TILE, TILE, 1)) * np.array([0.5, 1.0, 0.4])
            Image.fromarray((255 * np.exp(-amount)).astype(np.uint8)).save(folder / "tiles" / name / f"{i}.png")
    settings = {
        "root": folder,
        "classes": [{"name": name, "color": (i, i, i)} for i, name in enumerate(names)],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 1.0}],
        "patch_px": 8 * SIDE,
        "overlap_px": 0,
        "sources": [{"kind": "tiles", "folder": "tiles", "mpp": 0.5}],
    }
    return open_dataset(DatasetSettings.model_validate(settings), folder / "cache")


def encode(images: Any) -> Any:
    """Mix the mean colours of every 8 x 8 px: latents that cost nothing, as what is measured comes after them."""
    b, h, w, _ = images.shape
    cells = images.reshape(b, h // 8, 8, w // 8, 8, 3).astype(np.float32).mean((2, 4)) / 64 - 2
    return (cells @ np.random.default_rng(1).standard_normal((3, CHANNELS), dtype=np.float32)).transpose(0, 3, 1, 2)


def alternating(task: Any) -> tuple[Any, list[float]]:
    """Follow every block of steps of a task with as many bare passes; returns the task and its ratios."""
    import torch

    ratios: list[float] = []
    inner: Callable[..., None] = task.after_step
    state = {"steps": 0, "begin": perf_counter()}
    model = task.players()["model"].module
    ready: dict[str, Any] = {}

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return perf_counter()

    def bare() -> None:
        device = next(model.parameters()).device
        if not ready:
            ready.update({k: v.to(device) for k, v in task.draw(0, 0).items()})
        model.zero_grad(set_to_none=True)
        task.loss("model", {"model": model}, ready, 0.0)[0].backward()

    def after_step(gather: Callable[[Any], Any]) -> None:
        inner(gather)
        state["steps"] += 1
        if state["steps"] % BLOCK:
            return
        spent, begin = now() - state["begin"], now()
        for _ in range(BLOCK):
            bare()
        ratios.append(spent / (now() - begin))
        state["begin"] = now()

    task.after_step = after_step
    return task, ratios


def card() -> BundleCard:
    """What the denoiser is told and works on."""
    from wsigen.models.card import make_card

    return make_card(
        {
            "format": 1,
            **WORDS,
            "classes": [{"name": f"class {i}", "color": (i, i, i)} for i in range(CLASSES)],
            "levels": [{"name": f"level {i}"} for i in range(LEVELS)],
            "conditioning": {"kind": "class-map"},
            "latent": {"channels": CHANNELS, "factor": 8},
            "crop_latent": SIDE,
        },
        "benchmark",
    )


def measure(options: Options) -> list[Figure]:
    """Train a denoiser and an autoencoder of some millions of parameters for a few blocks each."""
    dataset = make_dataset(options.folder)
    return [measure_denoiser(options, dataset), measure_autoencoder(options, dataset)]


def measure_denoiser(options: Options, dataset: Any) -> Figure:
    """Of cached latents, all read from zarr: as a dataset far larger than what a stream keeps in memory."""
    from wsigen.dataset.latents import cache_latents
    from wsigen.training.conditions import Conditioner
    from wsigen.training.denoiser import build_schedule, build_unet
    from wsigen.training.denoiser_task import DenoiserTask
    from wsigen.training.recipes import DenoiserRecipe

    recipe = DenoiserRecipe(
        dataset=Path("none"),
        autoencoder=Path("none"),
        bundle=WORDS,  # type: ignore[arg-type]  # pydantic reads it
        network={"channels": (64, 96, 128)},  # type: ignore[arg-type]  # likewise
        loop=loop_of(options),  # type: ignore[arg-type]  # likewise
    )
    unet = build_unet(recipe.network, card(), SIDE)
    stream = cache_latents(dataset, encode, options.folder / "latents", "none").stream(0, kept_bytes=0)
    conditioner = Conditioner("class-map", CLASSES, LEVELS, True)
    task = DenoiserTask(recipe, recipe.bundle, unet, build_schedule(recipe), conditioner, stream)
    return figure(task, recipe.loop, options.folder / "denoiser", f"crops of {SIDE} cached latent px")


def measure_autoencoder(options: Options, dataset: Any) -> Figure:
    """Of crops that are read from the images; without the adversary, whose passes are no part of the bare ones."""
    from wsigen.training.autoencoder_task import AutoencoderTask
    from wsigen.training.recipes import AutoencoderRecipe

    recipe = AutoencoderRecipe(
        dataset=Path("none"),
        crop_px=PIXELS,
        losses={"adversary": 0},  # type: ignore[arg-type]  # pydantic reads it
        loop=loop_of(options),  # type: ignore[arg-type]  # likewise
    )
    task = AutoencoderTask(recipe, dataset.crops("training", PIXELS, 0))
    return figure(task, recipe.loop, options.folder / "autoencoder", f"crops of {PIXELS} px of images")


def loop_of(options: Options) -> dict[str, int]:
    """Steps and crops of both; what is not said is the loop's default, its reading threads among it."""
    blocks, batch = (4, 4) if options.quick else (10, 8)
    return {"steps": BLOCK * blocks, "batch": batch, "sample_every": 0}


def figure(task: Any, loop: LoopSettings, folder: Path, crops: str) -> Figure:
    """Train and compare."""
    from wsigen.training.loop import train

    size = sum(p.numel() for p in task.players()["model"].module.parameters()) / 1e6
    task, ratios = alternating(task)
    train(task, loop, folder, {})
    kept = ratios[1:]
    detail = f"{spread(kept)} over blocks of {BLOCK} steps; {size:.1f} M parameters, {loop.batch} {crops}"
    what = f"{task.name}: a step of the training loop over the bare forward and backward pass, wall time (1 / throughput ratio)"
    return Figure("training", what, median(kept), TARGET, detail)
