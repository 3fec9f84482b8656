"""Flow matching: its states and velocities as noise levels and estimates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import BundleError
from wsigen.models.bundle import check_bundle
from wsigen.models.flow import flow_of
from wsigen.models.model import load_model
from wsigen.sampling.schedule import add_noise, ddim_step, make_schedule, predict_x0

EULER = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_levels_are_those_of_diffusers(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    flow = flow_of({"_class_name": EULER, "shift": shift})
    assert np.allclose(flow.sigmas[::-1], theirs.sigmas.numpy(), atol=1e-6)
    assert np.allclose([flow.time(t) for t in range(999, -1, -1)], theirs.timesteps.numpy(), atol=1e-3)
    other = {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "flow_shift": shift}
    assert np.array_equal(flow_of(other).sigmas, flow.sigmas)


@given(
    seed=st.integers(0, 1000),
    timestep=st.integers(0, 998),
    shift=st.floats(0.2, 5),
)
def test_a_state_on_the_line_is_a_noised_picture(seed: int, timestep: int, shift: float) -> None:
    """u / n is x0 noised to abar; the velocity there gives x0."""
    x0, eps = np.random.default_rng(seed).normal(size=(2, 3, 4, 5)).astype(np.float32)
    flow = flow_of({"_class_name": EULER, "shift": shift})
    s = flow.sigmas[timestep]
    u = ((1 - s) * x0 + s * eps).astype(np.float32)
    y = add_noise(x0, eps, flow.abar[timestep])
    assert np.allclose(flow.state(y, timestep), u, atol=1e-5)
    assert np.allclose(predict_x0(flow.clean(u, eps - x0, timestep), y, flow.abar[timestep], "sample"), x0, atol=1e-4)


@given(seed=st.integers(0, 1000), steps=st.integers(1, 30), shift=st.floats(0.2, 5))
def test_ddim_is_eulers_method(seed: int, steps: int, shift: float) -> None:
    """Whatever the network says: here a velocity that has nothing to do with the state."""
    rng = np.random.default_rng(seed)
    flow = flow_of({"_class_name": EULER, "shift": shift})
    schedule = make_schedule(flow.abar, steps)
    y = u = rng.normal(size=(2, 3, 3)).astype(np.float32)
    sigmas = [float(flow.sigmas[t]) for t in schedule.timesteps] + [0.0]
    for k, timestep in enumerate(schedule.timesteps):
        v = rng.normal(size=u.shape).astype(np.float32)
        y = ddim_step(y, flow.clean(flow.state(y, timestep), v, timestep), schedule.abar[k], schedule.abar[k + 1])
        u = u + np.float32(sigmas[k + 1] - sigmas[k]) * v
        if k + 1 < steps:
            assert np.allclose(flow.state(y, schedule.timesteps[k + 1]), u, atol=2e-3)
    assert np.allclose(y, u, atol=2e-3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundles.make_dit_bundle(tmp_path / "dit")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("scheduler", {"use_dynamic_shifting": True}, "scheduler use_dynamic_shifting true is not supported"),
        ("scheduler", {"shift_terminal": 0.1}, "shift_terminal 0.1 is not supported"),
        ("scheduler", {"invert_sigmas": True}, "invert_sigmas true is not supported"),
        ("scheduler", {"shift": -1.0}, "shift"),
        ("scheduler", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "FlowMatchHeunDiscreteScheduler is not known"),
        ("scheduler", {"_class_name": "UniPC", "use_flow_sigmas": True}, "'flow_prediction' alone"),
        ("transformer", {"_class_name": "SD3Transformer2DModel"}, "the transformer is a SD3Transformer2DModel; possible: DiT"),
        ("transformer", {"_class_name": "UNet2DModel"}, "the transformer is a UNet2DModel"),
        ("transformer", {"num_embeds_ada_norm": 5}, "num_embeds_ada_norm is 5, but 2 levels of 3 classes need 6"),
        ("transformer", {"out_channels": 12}, "transformer out_channels is 12"),
        ("transformer", {"patch_size": 3}, "crop_latent is 16, the transformer needs a multiple of 3"),
        ("transformer", {"norm_type": "layer_norm"}, "transformer norm_type 'layer_norm' is not supported"),
        ("transformer", {"new_trick": 2}, "transformer new_trick 2"),
    ],
)
def test_what_is_not_done_is_refused_by_name(bundle: Path, part: str, values: dict[str, Any], message: str) -> None:
    change(bundle / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **values)
    with pytest.raises(BundleError, match=message) as refusal:
        check_bundle(bundle)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_additional_conditions": True}, "use_additional_conditions true is not supported"),
        ({"sample_size": 128, "use_additional_conditions": None}, "use_additional_conditions true"),
        ({"caption_channels": 16}, "caption_channels is 16, but the text encoder's d_model is 12"),
    ],
)
def test_what_pixart_may_not_ask_for(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    folder = tiny_bundles.make_pixart_bundle(tmp_path / "pixart")
    change(folder / "transformer" / "config.json", **values)
    with pytest.raises(BundleError, match=message):
        check_bundle(folder)


def test_prompts_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    folder = tiny_bundles.make_pixart_bundle(tmp_path / "pixart")
    change(folder / "text_encoder" / "config.json", model_type="gemma2")
    with pytest.raises(BundleError, match="the text encoder is a gemma2; possible: clip_text_model, t5"):
        check_bundle(folder)


def test_two_denoisers_are_refused(bundle: Path) -> None:
    shutil.copytree(bundle / "transformer", bundle / "unet")
    with pytest.raises(BundleError, match="has a unet and a transformer"):
        check_bundle(bundle)


def test_the_old_name_of_a_transformer_is_known(bundle: Path) -> None:
    y = np.random.default_rng(0).normal(size=(1, 4, 16, 16)).astype(np.float32)
    from wsigen.models.conditioning import NULL

    before = load_model(bundle).predict(y, 500, [NULL], 0)
    change(bundle / "transformer" / "config.json", _class_name="Transformer2DModel", num_vector_embeds=None)
    assert np.array_equal(load_model(bundle).predict(y, 500, [NULL], 0), before)


def test_a_folder_without_a_card_says_what_it_is(bundle: Path, tmp_path: Path) -> None:
    (bundle / "wsigen.yaml").unlink()
    change(bundle / "transformer" / "config.json", num_embeds_ada_norm=2)
    from wsigen.models.card import read_card

    card = read_card(bundle)
    assert (card.conditioning.kind, card.crop_latent, card.latent.channels) == ("class-tokens", 16, 4)


def test_pixart_is_told_a_grid_by_tokens(tmp_path: Path) -> None:
    """Without prompts, as by embeddings of an encoder; unknown is null."""
    from wsigen.models.conditioning import NULL, Condition
    from wsigen.models.summariser import ViTSummariser, save_summariser

    folder = tiny_bundles.make_pixart_bundle(tmp_path / "pixart")
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    save_summariser(ViTSummariser(6, 2, side=4, width=12, layers=1, heads=2, mlp=16), folder / "summariser")
    grid = {"told": "tokens", "encoder": "means", "cell_um": 16.0, "dimension": 6, "parts": [4, 4]}
    tiny_bundles.write_card(folder, tiny_bundles.tiny_card("none", grid=grid))
    rng = np.random.default_rng(0)
    y, window = rng.normal(size=(1, 4, 16, 16)).astype(np.float32), rng.normal(size=(7, 4, 4)).astype(np.float32)
    window[-1] = 1
    unknown = np.concatenate([window[:-1], 0 * window[-1:]])
    told, dark, null = load_model(folder).predict(
        y.repeat(3, axis=0), 500, [Condition(grid=window), Condition(grid=unknown), NULL], 0
    )
    assert np.abs(told - null).max() > 1e-3
    assert np.allclose(dark, null, atol=1e-5)
