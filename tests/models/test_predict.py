"""The denoiser behind ``Model.predict``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from wsigen.base.classes import UNKNOWN
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.model import Model, load_model
from wsigen.run.tasks.predict import StepSettings, View, calls_of_crop, estimate_crops
from wsigen.sampling.schedule import predict_x0


def noise(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4, 16, 16)).astype(np.float32)


def class_map() -> np.ndarray:
    classes = np.ones((16, 16), np.uint8)
    classes[:5], classes[-3:] = 2, UNKNOWN
    return classes


MAP = Condition(class_map=class_map())
TUMOR, STROMA = Condition(label=1), Condition(label=2)


@pytest.fixture(params=["class_map_model", "token_model", "text_model"])
def any_model(request: pytest.FixtureRequest) -> Model:
    model: Model = request.getfixturevalue(request.param)
    return model


def conditions_for(model: Model) -> list[Condition]:
    return [MAP, NULL, MAP, NULL] if model.card.conditioning.kind == "class-map" else [TUMOR, NULL, STROMA, TUMOR]


def test_shape_and_type(any_model: Model) -> None:
    out = any_model.predict(noise(4), 500, conditions_for(any_model), 0)
    assert out.shape == (4, 4, 16, 16)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def test_rows_do_not_see_each_other(any_model: Model) -> None:
    conditions, y = conditions_for(any_model), noise(4)
    out = any_model.predict(y, 500, conditions, 0)
    other = y.copy()
    other[1:] = noise(3, seed=9)
    assert np.array_equal(any_model.predict(other, 500, conditions, 0)[0], out[0])
    turned = any_model.predict(y[::-1].copy(), 500, conditions[::-1], 0)
    assert np.array_equal(turned[::-1], out)


def test_condition_level_and_timestep_matter(any_model: Model) -> None:
    condition = conditions_for(any_model)[0]
    y = noise(1)
    out = any_model.predict(y, 500, [condition], 0)
    assert not np.allclose(any_model.predict(y, 500, [NULL], 0), out, atol=1e-6)
    assert not np.allclose(any_model.predict(y, 500, [condition], 1), out, atol=1e-6)
    assert not np.allclose(any_model.predict(y, 100, [condition], 0), out, atol=1e-6)


def test_threads_share_a_model(any_model: Model) -> None:
    conditions = conditions_for(any_model)
    batches = [noise(4, seed=s) for s in range(6)]
    alone = [any_model.predict(y, 300, conditions, 0) for y in batches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda y: any_model.predict(y, 300, conditions, 0), batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_null_is_a_map_of_unknown(class_map_model: Model) -> None:
    unknown = Condition(class_map=np.full((16, 16), UNKNOWN, np.uint8))
    out = class_map_model.predict(noise(2)[[0, 0]], 500, [NULL, unknown], 0)
    assert np.array_equal(out[0], out[1])


def test_class_map_channels_and_level(class_map_model: Model, class_map_bundle: Path) -> None:
    """The network is given latents, then one channel per class, then 'unknown'."""
    unet = UNet2DModel.from_pretrained(class_map_bundle / "unet").eval()
    y = noise(1)
    maps = np.stack([class_map() == v for v in (0, 1, 2, UNKNOWN)]).astype(np.float32)
    sample = torch.from_numpy(np.concatenate([y[0], maps])[None])
    with torch.inference_mode():
        expected = unet(sample, 500, class_labels=torch.tensor([1])).sample.numpy()
    assert np.allclose(class_map_model.predict(y, 500, [MAP], 1), expected, atol=1e-5)


@pytest.mark.parametrize(("condition", "level", "token"), [(TUMOR, 0, 1), (STROMA, 1, 5), (NULL, 0, 6), (NULL, 1, 6)])
def test_token_numbers(token_model: Model, token_bundle: Path, condition: Condition, level: int, token: int) -> None:
    """Level * classes + class; the last one is the null token."""
    unet = UNet2DModel.from_pretrained(token_bundle / "unet").eval()
    y = noise(1)
    with torch.inference_mode():
        expected = unet(torch.from_numpy(y), 500, class_labels=torch.tensor([token])).sample.numpy()
    assert np.allclose(token_model.predict(y, 500, [condition], level), expected, atol=1e-5)


def test_prompts_name_class_and_level(text_model: Model) -> None:
    inputs = text_model.inputs
    assert inputs.prompt(1, 0) == "Tumor, patch"
    assert inputs.prompt(2, 1) == "Stroma, overview"
    assert inputs.prompt(None, 1) == ""


def test_wrong_conditions_are_refused(class_map_model: Model, token_model: Model) -> None:
    with pytest.raises(ValueError, match="2 conditions for a batch of 1"):
        token_model.predict(noise(1), 500, [NULL, NULL], 0)
    with pytest.raises(ValueError, match="one class per crop"):
        token_model.predict(noise(1), 500, [MAP], 0)
    with pytest.raises(ValueError, match="class index 3"):
        token_model.predict(noise(1), 500, [Condition(label=3)], 0)
    with pytest.raises(ValueError, match=r"class map of shape \(8, 8\)"):
        class_map_model.predict(noise(1), 500, [Condition(class_map=np.zeros((8, 8), np.uint8))], 0)


def test_schedule_is_the_bundles(class_map_model: Model, token_model: Model, text_model: Model) -> None:
    cosine = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double().numpy()
    assert np.array_equal(class_map_model.abar, cosine)
    assert class_map_model.abar.dtype == np.float64
    assert (class_map_model.prediction_type, class_map_model.clip) == ("v_prediction", None)
    assert (token_model.prediction_type, token_model.clip) == ("epsilon", 3.0)
    # Stable Diffusion's PNDM says nothing of clipping, so nothing is clipped.
    assert (text_model.prediction_type, text_model.clip) == ("epsilon", None)
    assert text_model.abar[-1] == pytest.approx(0.00466, rel=1e-3)


def test_zero_terminal_snr(tmp_path: Path) -> None:
    folder = tiny_bundles.make_token_bundle(tmp_path)
    DDPMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True).save_pretrained(
        folder / "scheduler"
    )
    assert load_model(folder).abar[-1] == pytest.approx(0.0, abs=1e-7)


def test_bf16_is_near_fp32(class_map_bundle: Path, class_map_model: Model) -> None:
    model = load_model(class_map_bundle, precision="bf16")
    a, b = (m.predict(noise(2), 500, [MAP, NULL], 0) for m in (model, class_map_model))
    assert a.dtype == np.float32
    assert 0 < np.abs(a - b).max() < 0.05


def test_unknown_precision(class_map_bundle: Path) -> None:
    with pytest.raises(ValueError, match="possible: fp32, bf16"):
        load_model(class_map_bundle, precision="fp8")


def test_stable_diffusion_layout_without_a_card(plain_diffusers: Path) -> None:
    model = load_model(plain_diffusers)
    assert model.predict(noise(2), 500, [TUMOR, NULL], 0).shape == (2, 4, 16, 16)
    assert model.autoencoder.decode(noise(1)[0]).shape == (128, 128, 3)


@pytest.mark.parametrize("guidance", [0.0, 0.7])
def test_unknown_pixels_share_the_null_pass(token_model: Model, guidance: float) -> None:
    """Two labels and unknown pixels need three calls with guidance too; unknown pixels take the null prediction."""
    classes, y = class_map(), noise(1)[0]
    calls = calls_of_crop(token_model.card, classes, guidance)
    assert sorted(-1 if c.label is None else c.label for c in calls) == [-1, 1, 2]
    settings = StepSettings(500, 0.3, guidance, 0, 4)
    (found,) = estimate_crops(token_model, settings, [View(y, classes)])
    null, tumor, stroma = token_model.predict(np.stack([y] * 4), 500, [NULL, TUMOR, STROMA, STROMA], 0)[:3]
    own = np.where(classes == 1, tumor, np.where(classes == 2, stroma, null))
    expected = predict_x0(own + guidance * (own - null), y, 0.3, token_model.prediction_type, token_model.clip)
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_guidance_keeps_a_grid_that_is_told_by_channels(tmp_path: Path, known: bool) -> None:
    """It is away from any class, not away from the picture that the slide follows; an unknown map needs no second pass."""
    model = load_model(tiny_bundles.make_grid_bundle(tmp_path / "bundle"))
    classes = class_map() if known else np.full((16, 16), UNKNOWN, np.uint8)
    grid, y = np.random.default_rng(1).normal(size=(4, 16, 16)).astype(np.float32), noise(1)[0]
    assert len(calls_of_crop(model.card, classes, 0.7, grid)) == (2 if known else 1)
    (found,) = estimate_crops(model, StepSettings(500, 0.3, 0.7, 0, 4), [View(y, classes, grid)])
    own, null = Condition(class_map=classes if known else None, grid=grid), Condition(grid=grid)
    seen, unseen = model.predict(np.stack([y] * 4), 500, [own, null, null, null], 0)[:2]
    expected = predict_x0(seen + 0.7 * (seen - unseen), y, 0.3, model.prediction_type, model.clip)
    assert np.allclose(found, expected, atol=1e-4)
