"""Conditions in batches equal those of the engine; unknown pixels never speak for a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler
from streams import Latents, denoiser_settings

from wsigen.classes import UNKNOWN
from wsigen.errors import TrainingError
from wsigen.models.card import make_card
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.inputs import ClassMapInputs, TokenInputs
from wsigen.training.conditions import Conditioner, crop_labels, one_hot_maps
from wsigen.training.denoiser_model import DenoiserTask, hide_conditions
from wsigen.training.denoiser_parts import build_schedule, build_unet, load_unet
from wsigen.training.recipes import DenoiserRecipe

MAPS = np.array([[[0, 0], [1, UNKNOWN]], [[UNKNOWN, UNKNOWN], [UNKNOWN, 1]], [[UNKNOWN] * 2] * 2], dtype=np.uint8)


def card(kind: str):
    import tiny_bundles

    return make_card(tiny_bundles.tiny_card(kind), "test")


def test_a_crop_is_of_its_most_frequent_known_class() -> None:
    assert crop_labels(torch.from_numpy(MAPS), 3).tolist() == [0, 1, -1]


def test_maps_and_tokens_equal_the_engines() -> None:
    latents, levels = torch.randn(3, 4, 2, 2), torch.ones(3, dtype=torch.long)
    expected, extra = ClassMapInputs(card("class-map"), True)(latents, [Condition(class_map=m) for m in MAPS], 1)
    found, given = Conditioner("class-map", 3, 2, True)(latents, torch.from_numpy(MAPS), levels)
    assert torch.equal(found, expected)
    assert torch.equal(given["class_labels"], extra["class_labels"])
    _, extra = TokenInputs(card("class-tokens"))(latents, [Condition(label=0), Condition(label=1), NULL], 1)
    _, given = Conditioner("class-tokens", 3, 2)(latents, torch.from_numpy(MAPS), levels)
    assert torch.equal(given["class_labels"], extra["class_labels"])


def test_unknown_pixels_train_no_class_channel() -> None:
    """The weights that read class channels get no gradient from crops that are wholly unknown."""
    recipe = DenoiserRecipe.model_validate(denoiser_settings(p_unc=1.0))
    unet = build_unet(recipe.network, "class-map", 4, 2, 2, 8)
    task = DenoiserTask(recipe, unet, build_schedule(recipe), Conditioner("class-map", 2, 2, True), Latents())
    loss, _ = task.loss("model", {"model": task.players()["model"].module}, task.draw(0, 0), 0.0)
    loss.backward()
    gradient = unet.conv_in.weight.grad
    assert not gradient[:, 4:6].any()
    assert gradient[:, 6].any()
    assert gradient[:, :4].any()


def test_unknown_pixels_of_a_sparse_map_are_zero_in_every_class_channel() -> None:
    channels = one_hot_maps(torch.from_numpy(MAPS), 3)
    unknown = torch.from_numpy(MAPS == UNKNOWN)
    assert not channels[:, :3].sum(dim=1)[unknown].any()
    assert torch.equal(channels[:, 3].bool(), unknown)


def test_unlabelled_crops_are_always_null_and_others_with_probability_p_unc() -> None:
    maps, labelled = np.ones((4000, 2, 2), dtype=np.uint8), np.arange(4000) % 2 == 0
    hide_conditions(maps, labelled, 0.25, np.random.default_rng(0))
    hidden = (maps == UNKNOWN).all(axis=(1, 2))
    assert hidden[~labelled].all()
    assert abs(hidden[labelled].mean() - 0.25) < 0.03
    assert (maps[~hidden] == 1).all()


@pytest.mark.parametrize("kind", ["class-map", "class-tokens"])
def test_a_network_of_other_inputs_begins_as_it_was(kind: str, tmp_path: Path) -> None:
    recipe = DenoiserRecipe.model_validate(denoiser_settings())
    old = build_unet(recipe.network, "none", 4, 2, 2, 8).eval()
    torch.nn.init.zeros_(old.class_embedding.weight)
    old.save_pretrained(tmp_path / "unet")
    new = load_unet(tmp_path, kind, 4, 5, 3).eval()  # type: ignore[arg-type]
    noisy, level = torch.randn(1, 4, 8, 8), torch.tensor([0])
    sample, extra = Conditioner(kind, 5, 3, kind == "class-map")(noisy, torch.ones(1, 8, 8, dtype=torch.uint8), level)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = old(noisy, 100, class_labels=level).sample
        torch.testing.assert_close(new(sample, 100, **extra).sample, expected)
    assert yaml.safe_load((tmp_path / "unet" / "config.json").read_text())["in_channels"] == 4


def test_a_schedule_that_no_bundle_may_hold_is_refused_before_training(tmp_path: Path) -> None:
    given = {"start": tmp_path, "conditioning": {"kind": "none"}}
    DDIMScheduler(rescale_betas_zero_snr=True).save_pretrained(tmp_path / "scheduler")
    with pytest.raises(TrainingError, match=r"rescale_betas_zero_snr.*set prediction: v_prediction"):
        build_schedule(DenoiserRecipe.model_validate(denoiser_settings(**given)))
    scheduler = build_schedule(DenoiserRecipe.model_validate(denoiser_settings(**given, prediction="v_prediction")))
    assert scheduler.config["rescale_betas_zero_snr"]
