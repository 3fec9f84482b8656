"""Wall time of a training step over the model's bare forward and backward pass.

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

BLOCK, TARGET = 10, 1 / 0.9
CLASSES, LEVELS, CHANNELS, SIDE = 5, 2, 8, 32
WORDS = {"name": "b", "title": "b", "licence": "CC0-1.0", "not_for": "b"}


class Stream:
    """Random latents from a pool of float16, standardised on reading as a cache's are."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._pool = rng.standard_normal((256, CHANNELS, SIDE, SIDE)).astype(np.float16)
        self._maps = rng.integers(0, CLASSES, (256, SIDE, SIDE)).astype(np.uint8)

    def batch(self, step: int, count: int) -> Any:
        """Draw a batch."""
        from wsigen.cohort.batch import LatentBatch

        rows = np.random.default_rng(step).integers(0, len(self._pool), count)
        latents = self._pool[rows].astype(np.float32)
        return LatentBatch(latents, self._maps[rows], rows % LEVELS, np.ones(count, dtype=bool))


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


def measure(options: Options) -> Figure:
    """Train a denoiser of some millions of parameters for a few blocks."""
    from wsigen.training.conditions import Conditioner
    from wsigen.training.denoiser_model import DenoiserTask
    from wsigen.training.denoiser_parts import build_schedule, build_unet
    from wsigen.training.loop import train
    from wsigen.training.recipes import DenoiserRecipe

    blocks, batch = (4, 4) if options.quick else (10, 8)
    recipe = DenoiserRecipe(
        cohort=Path("none"),
        autoencoder=Path("none"),
        bundle=WORDS,  # type: ignore[arg-type]  # pydantic reads it
        network={"channels": (64, 96, 128)},  # type: ignore[arg-type]  # likewise
        loop={"steps": BLOCK * blocks, "batch": batch, "sample_every": 0},  # type: ignore[arg-type]  # likewise
    )
    unet = build_unet(recipe.network, card(), SIDE)
    conditioner = Conditioner("class-map", CLASSES, LEVELS, True)
    task, ratios = alternating(DenoiserTask(recipe, unet, build_schedule(recipe), conditioner, Stream()))
    train(task, recipe.loop, options.folder / "training", {})
    kept = ratios[1:]
    size = sum(p.numel() for p in unet.parameters()) / 1e6
    detail = f"{spread(kept)} over blocks of {BLOCK} steps; {size:.1f} M parameters, {batch} crops of {SIDE} latent px"
    what = "a step of the training loop over the model's bare forward and backward pass, wall time (1 / throughput ratio)"
    return Figure("training", what, median(kept), TARGET, detail)
