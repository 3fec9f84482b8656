"""What a task draws for a step has nothing to do with what the stream drew for its first crop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streams import card_of_kind, denoiser_settings

from wsigen.base.errors import TrainingError
from wsigen.dataset.latents import LatentBatch
from wsigen.training.conditions import Conditioner
from wsigen.training.denoiser import build_schedule, build_unet
from wsigen.training.denoiser_task import DenoiserTask, check_noise
from wsigen.training.recipes import DenoiserRecipe

STEPS, SIDE = 400, 8


class Coins:
    """A stream as the dataset's are: crop i of a step draws with ``(seed, step, i)``; its level is a toss of that coin."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def batch(self, step: int, count: int) -> LatentBatch:
        levels = [int(np.random.default_rng((self.seed, step, i)).random() < 0.5) for i in range(count)]
        maps = np.zeros((count, SIDE, SIDE), np.uint8)
        return LatentBatch(np.zeros((count, 4, SIDE, SIDE), np.float32), maps, np.array(levels), np.ones(count, bool))


def task(**changes: Any) -> DenoiserTask:
    recipe = DenoiserRecipe.model_validate(denoiser_settings(**changes))
    unet = build_unet(recipe.network, card_of_kind("class-map", "ABC"), SIDE)
    conditioner = Conditioner("class-map", 3, 2, True)
    return DenoiserTask(recipe, recipe.bundle, unet, build_schedule(recipe), conditioner, Coins(recipe.seed))


@pytest.mark.parametrize("changes", [{"p_unc": 0.5}, {"p_unc": 0.0, "quarter_share": 0.5}])
def test_hiding_and_quartering_do_not_depend_on_the_crop(changes: dict[str, Any]) -> None:
    drawn = task(**changes)
    seen: dict[int, list[bool]] = {0: [], 1: []}
    for step in range(STEPS):
        batch = drawn.draw(step, 0)
        quartered = batch["class_maps"].shape[-1] < SIDE
        hidden = bool((batch["class_maps"][0] != 0).all())
        seen[int(batch["levels"][0])].append(quartered if "quarter_share" in changes else hidden)
    shares = [np.mean(values) for values in seen.values()]
    assert all(abs(share - 0.5) < 0.15 for share in shares), shares


def test_all_parts_of_a_step_are_cut_alike() -> None:
    drawn = task(p_unc=0.0, quarter_share=0.5)
    for step in range(20):
        assert len({drawn.draw(step, part)["class_maps"].shape for part in range(3)}) == 1


def test_each_magnification_may_have_its_own_noise() -> None:
    drawn = task(noise_levels={"mean": [-1.0, 2.0], "deviation": 0.5})
    places: dict[int, list[float]] = {0: [], 1: []}
    for step in range(STEPS):
        batch = drawn.draw(step, 0)
        for level, place in zip(batch["levels"].tolist(), batch["steps"].tolist(), strict=True):
            places[level].append((place + 0.5) / 1000)
    means = [np.mean(np.log(np.array(places[level]) / (1 - np.array(places[level])))) for level in (0, 1)]
    assert np.allclose(means, [-1.0, 2.0], atol=0.15)


def test_noise_of_other_magnifications_than_there_are_is_refused() -> None:
    with pytest.raises(TrainingError, match="one for each of 2 magnifications"):
        check_noise(task(noise_levels={"mean": [0.0, 1.0, 2.0]}).recipe, 2)
    check_noise(task(noise_levels={"mean": [0.0, 1.0]}).recipe, 2)
