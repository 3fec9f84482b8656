"""Conditions in batches equal those of the engine; unknown pixels never speak for a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler
from streams import Latents, card_of_kind, denoiser_settings

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import TrainingError
from wsigen.models.card import BundleCard, GridCondition, make_card
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.inputs import ClassMapInputs, TokenInputs
from wsigen.training.autoencoder import load_vae
from wsigen.training.conditions import Conditioner, crop_labels, memory_rows
from wsigen.training.denoiser import build_schedule, build_unet, load_unet, same_weights, with_known_cells
from wsigen.training.denoiser_task import DenoiserTask, hide_conditions
from wsigen.training.make_denoiser import scale_of_start
from wsigen.training.recipes import DenoiserRecipe

MAPS = np.array([[[0, 0], [1, UNKNOWN]], [[UNKNOWN, UNKNOWN], [UNKNOWN, 1]], [[UNKNOWN] * 2] * 2], dtype=np.uint8)


def card(kind: str):
    import tiny_bundles

    return make_card(tiny_bundles.tiny_card(kind), "test")


def test_a_crop_is_of_the_class_that_fills_half_of_it() -> None:
    assert crop_labels(torch.from_numpy(MAPS), 3).tolist() == [0, -1, -1]
    halves = np.array([[[0, 0], [1, 1]], [[2, 2], [2, UNKNOWN]], [[0, 1], [2, 2]]], np.uint8)
    assert crop_labels(torch.from_numpy(halves), 3).tolist() == [0, 2, 2]


def test_a_mostly_unknown_crop_has_the_null_condition_and_no_row_of_the_entropy_loss() -> None:
    maps = np.full((2, 8, 8), UNKNOWN, np.uint8)
    maps[0, 0, 0], maps[1, :4] = 1, 1  # one known cell, and half of the crop
    levels = torch.zeros(2, dtype=torch.long)
    _, given = Conditioner("class-tokens", 3, 2)(torch.zeros(2, 4, 8, 8), torch.from_numpy(maps), levels)
    assert given["class_labels"].tolist() == [6, 1]
    assert memory_rows(crop_labels(torch.from_numpy(maps), 3), levels, 3).tolist() == [-1, 1]


def test_maps_and_tokens_equal_the_engines() -> None:
    latents, levels = torch.randn(3, 4, 2, 2), torch.ones(3, dtype=torch.long)
    expected, extra = ClassMapInputs(card("class-map"), True)(latents, [Condition(class_map=m) for m in MAPS], 1)
    found, given = Conditioner("class-map", 3, 2, True)(latents, torch.from_numpy(MAPS), levels)
    assert torch.equal(found, expected)
    assert torch.equal(given["class_labels"], extra["class_labels"])
    _, extra = TokenInputs(card("class-tokens"))(latents, [Condition(label=0), NULL, NULL], 1)
    _, given = Conditioner("class-tokens", 3, 2)(latents, torch.from_numpy(MAPS), levels)
    assert torch.equal(given["class_labels"], extra["class_labels"])


@pytest.mark.parametrize("kind", ["class-map", "text"])
def test_attention_is_where_it_is_asked_for(kind: str) -> None:
    network = {"channels": (8, 16, 32), "layers": 1, "norm_groups": 4, "head_dim": 8}
    for levels in (1, 2):
        settings = denoiser_settings(network=network | {"attention": levels}, text="none", conditioning={"kind": kind})
        unet = build_unet(DenoiserRecipe.model_validate(settings).network, card_of_kind(kind), 16, 24)
        found = [hasattr(block, "attentions") for block in (*unet.down_blocks, *reversed(unet.up_blocks))]
        assert found == 2 * [k >= 3 - levels for k in range(3)]
        extra = {"encoder_hidden_states": torch.zeros(1, 5, 24)} if kind == "text" else {"class_labels": torch.tensor([0])}
        noisy = torch.zeros(1, unet.config["in_channels"], 16, 16)
        assert unet(noisy, 1, **extra).sample.shape == (1, 4, 16, 16)
    with pytest.raises(ValueError, match="attention at 4 levels of 3"):
        DenoiserRecipe.model_validate(denoiser_settings(network=network | {"attention": 4}))


def test_unknown_pixels_train_no_class_channel() -> None:
    """The weights that read class channels get no gradient from crops that are wholly unknown."""
    recipe = DenoiserRecipe.model_validate(denoiser_settings(p_unc=1.0))
    unet = build_unet(recipe.network, card_of_kind("class-map"), 8)
    task = DenoiserTask(recipe, recipe.bundle, unet, build_schedule(recipe), Conditioner("class-map", 2, 2, True), Latents())
    loss, _ = task.loss("model", {"model": task.players()["model"].module}, task.draw(0, 0), 0.0)
    loss.backward()
    gradient = unet.conv_in.weight.grad
    assert not gradient[:, 4:6].any()
    assert gradient[:, 6].any()
    assert gradient[:, :4].any()


def test_unknown_pixels_of_a_sparse_map_are_zero_in_every_class_channel() -> None:
    no_latents = torch.zeros(len(MAPS), 0, *MAPS.shape[1:])
    channels, _ = Conditioner("class-map", 3, 2)(no_latents, torch.from_numpy(MAPS), torch.zeros(len(MAPS)))
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
    old = build_unet(recipe.network, card_of_kind("none"), 8).eval()
    torch.nn.init.zeros_(old.class_embedding.weight)
    old.save_pretrained(tmp_path / "unet")
    new = load_unet(tmp_path, card_of_kind(kind, "ABCDE", (0.5, 1.0, 2.0))).eval()
    noisy, level = torch.randn(1, 4, 8, 8), torch.tensor([0])
    sample, extra = Conditioner(kind, 5, 3, kind == "class-map")(noisy, torch.ones(1, 8, 8, dtype=torch.uint8), level)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = old(noisy, 100, class_labels=level).sample
        torch.testing.assert_close(new(sample, 100, **extra).sample, expected)
    assert yaml.safe_load((tmp_path / "unet" / "config.json").read_text())["in_channels"] == 4


@pytest.mark.parametrize("kind", ["class-map", "class-tokens", "none"])
def test_classes_and_levels_known_to_the_start_keep_what_they_learnt(kind: str, tmp_path: Path) -> None:
    """A bundle of classes (A, B) and levels (0.5, 2), gone on with as (New, B, A) and (2, 0.5)."""
    recipe = DenoiserRecipe.model_validate(denoiser_settings())
    first, second = card_of_kind(kind, "AB", (0.5, 2.0)), card_of_kind(kind, ["New", "B", "A"], (0.4, 2.1, 3.0))
    old = build_unet(recipe.network, first, 8).eval()
    old.save_pretrained(tmp_path / "unet")
    (tmp_path / "wsigen.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    new = load_unet(tmp_path, second).eval()
    noisy = torch.randn(1, 4, 8, 8)

    def predict(unet: torch.nn.Module, classes: int, levels: int, label: int, level: int) -> torch.Tensor:
        maps = torch.full((1, 8, 8), label, dtype=torch.uint8)
        sample, extra = Conditioner(kind, classes, levels, kind != "class-tokens")(noisy, maps, torch.tensor([level]))  # type: ignore[arg-type]
        with torch.no_grad():
            return unet(sample, 100, **extra).sample

    same = {2: 0, 1: 1, 0: UNKNOWN, UNKNOWN: UNKNOWN}
    for label, before in same.items():
        for level, old_level in {0: 0, 1: 1, 2: 1}.items():
            expected = predict(old, 2, 2, before, old_level)
            torch.testing.assert_close(predict(new, 3, 3, label, level), expected)


def with_grid(numbers: int, encoder: str = "mean-colour", shift: float = 0.0) -> BundleCard:
    """A card of class maps and a grid of so many numbers a cell, told by channels."""
    grid = GridCondition(encoder=encoder, mean=(shift,) * numbers, std=(1.0 + shift,) * numbers)
    return make_card(card_of_kind("class-map").model_dump(mode="json") | {"grid": grid.model_dump(mode="json")}, "test")


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((3, "mean-colour"), (3, "mean-colour"), True),
        ((3, "mean-colour"), (6, "means"), False),
        ((6, "means"), (3, "mean-colour"), False),
        ((6, "means"), (6, "others"), False),
    ],
)
def test_what_a_start_learnt_of_a_grid_is_kept_for_cells_of_the_same_numbers(
    before: tuple[int, str], after: tuple[int, str], kept: bool, tmp_path: Path
) -> None:
    first, second = with_grid(*before, shift=0.5), with_grid(*after)
    old = build_unet(DenoiserRecipe.model_validate(denoiser_settings()).network, first, 8)
    old.save_pretrained(tmp_path / "unet")
    (tmp_path / "wsigen.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    new = load_unet(tmp_path, second)
    assert torch.equal(new.conv_in.weight[:, :7], old.conv_in.weight[:, :7])
    of_grid = new.conv_in.weight[:, 7:]
    assert of_grid.shape[1] == after[0] + 1
    assert torch.equal(of_grid, old.conv_in.weight[:, 7:]) if kept else not of_grid.any()
    assert second.grid is not None
    assert with_known_cells(second.grid, first) == (first.grid if kept else second.grid)
    assert with_known_cells(second.grid, None) == second.grid


def test_prompts_of_another_width_than_the_start_listens_to_are_refused(tmp_path: Path) -> None:
    recipe = DenoiserRecipe.model_validate(denoiser_settings(text=tmp_path, conditioning={"kind": "text"}))
    build_unet(recipe.network, card_of_kind("text"), 8, 32).save_pretrained(tmp_path / "unet")
    assert load_unet(tmp_path, card_of_kind("text"), 32).config["cross_attention_dim"] == 32
    with pytest.raises(TrainingError, match=r"unet: listens to tokens of 32 numbers, text encoder or summariser give 16; give"):
        load_unet(tmp_path, card_of_kind("text"), 16)


def test_an_autoencoder_is_the_same_also_in_half_precision() -> None:
    import tiny_bundles

    torch.manual_seed(0)
    one, other = tiny_bundles.tiny_kl(), tiny_bundles.tiny_kl()
    copy = tiny_bundles.tiny_kl()
    copy.load_state_dict({k: v.half().float() for k, v in one.state_dict().items()})
    assert same_weights(one, copy)
    assert not same_weights(one, other)


def test_a_plain_diffusers_folder_keeps_its_scaling_factor(tmp_path: Path) -> None:
    """As `wsigen.generate` has it: what the U-Net learnt is (encode(x) - shift_factor) * scaling_factor."""
    import tiny_bundles

    vae = tiny_bundles.tiny_kl()
    vae.register_to_config(scaling_factor=0.25, shift_factor=0.5)
    vae.save_pretrained(tmp_path / "vae")
    tiny_bundles.tiny_unet(4, None).save_pretrained(tmp_path / "unet")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    recipe = DenoiserRecipe.model_validate(denoiser_settings(start=tmp_path, conditioning={"kind": "none"}))
    scale = scale_of_start(recipe, load_vae(tmp_path))
    assert scale is not None
    np.testing.assert_allclose(scale, [[0.5] * 4, [4.0] * 4])
    torch.nn.init.normal_(vae.decoder.conv_in.weight)
    torch.nn.init.normal_(vae.post_quant_conv.weight)
    assert np.array_equal(scale_of_start(recipe, vae), scale), "another decoder (decoder_only): its latents are the same"
    torch.nn.init.normal_(vae.quant_conv.weight)
    assert scale_of_start(recipe, vae) is None, "another encoder: its latents are other ones"


def test_a_schedule_that_no_bundle_may_hold_is_refused_before_training(tmp_path: Path) -> None:
    given = {"start": tmp_path, "conditioning": {"kind": "none"}}
    DDIMScheduler(rescale_betas_zero_snr=True).save_pretrained(tmp_path / "scheduler")
    with pytest.raises(TrainingError, match=r"rescale_betas_zero_snr.*set prediction: v_prediction"):
        build_schedule(DenoiserRecipe.model_validate(denoiser_settings(**given)))
    scheduler = build_schedule(DenoiserRecipe.model_validate(denoiser_settings(**given, prediction="v_prediction")))
    assert scheduler.config["rescale_betas_zero_snr"]


def test_jitter_without_turned_copies_to_change_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stain_jitter 0.2 changes the turned copies alone.*set latent_variants to 2 or more"):
        DenoiserRecipe.model_validate(denoiser_settings(stain_jitter=0.2))
    assert DenoiserRecipe.model_validate(denoiser_settings(stain_jitter=0.2, latent_variants=2)).stain_jitter == 0.2
