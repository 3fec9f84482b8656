"""What diffusers' configs may ask for: nothing of it is ignored."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_bundles

from wsigen.base.errors import BundleError
from wsigen.models.bundle import check_bundle
from wsigen.models.card import read_card
from wsigen.models.config_keys import FIXED, FREE, demand_supported
from wsigen.models.derived_card import latent_scale
from wsigen.models.loading import load_network

NETWORKS = [
    "AutoencoderKL", "AutoencoderTiny", "VQModel", "UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
]  # fmt: skip
SCHEDULERS = [
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler", "LMSDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "DEISMultistepScheduler", "LCMScheduler", "TCDScheduler",
]  # fmt: skip


def defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "kwargs", "args")}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_key_of_diffusers_is_known_and_its_default_allowed(name: str) -> None:
    signature = defaults(name)
    written = {"block_out_channels"} if name == "AutoencoderTiny" else set()  # added by diffusers when it saves one
    assert signature.keys() | written == FREE[name] | FIXED[name].keys()
    demand_supported({"_class_name": name, **signature}, "part", "here")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_allowed_as_diffusers_makes_it(name: str) -> None:
    signature = defaults(name)
    assert signature.keys() <= FREE["scheduler"] | FIXED["scheduler"].keys()
    demand_supported({"_class_name": name, **signature}, "scheduler", "here")


def test_the_scheduler_of_flow_matching_is_allowed_as_diffusers_makes_it() -> None:
    signature = defaults("FlowMatchEulerDiscreteScheduler")
    assert signature.keys() <= FREE["flow"] | FIXED["flow"].keys()
    demand_supported({"_class_name": "FlowMatchEulerDiscreteScheduler", **signature}, "flow", "here")


@pytest.fixture
def copied(class_map_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(class_map_bundle, tmp_path / "bundle"))


@pytest.fixture
def copied_plain(plain_diffusers: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain_diffusers, tmp_path / "plain"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


ASKED = [
    ("unet", {"time_cond_proj_dim": 256}, "unet time_cond_proj_dim 256 is not supported"),
    ("unet", {"encoder_hid_dim": 32}, "unet encoder_hid_dim 32"),
    ("unet", {"encoder_hid_dim_type": "text_proj"}, "unet encoder_hid_dim_type 'text_proj'"),
    ("unet", {"class_embed_type": "projection"}, "unet class_embed_type 'projection'"),
    ("unet", {"addition_embed_type": "text_time"}, "unet addition_embed_type 'text_time'"),
    ("unet", {"projection_class_embeddings_input_dim": 2816}, "projection_class_embeddings_input_dim 2816"),
    ("unet", {"attention_type": "gated"}, r"attention_type 'gated' .*only 'default' is"),
    ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type 'fourier'"),
    ("unet", {"cross_attention_dim": [16, 32]}, r"cross_attention_dim is \[16, 32\]"),
    ("unet", {"new_trick": 0.5}, "unet new_trick 0.5 .*not known here"),
    ("vae", {"latents_mean": [0.0] * 4}, "latents_mean alone"),
    ("vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "shift_factor": 0.1}, "and shift_factor alone"),
    ("vae", {"latents_mean": [0.0] * 3, "latents_std": [1.0] * 3}, "3 latents_mean and 3 latents_std for 4"),
    ("vae", {"latents_mean": [0.0] * 4}, "correct vae/config.json: both with a number for each of 4 channels"),
    ("vae", {"latents_std": [0.0] * 4}, "latents_std.*correct it there"),
    ("vae", {"new_trick": [1]}, r"vae new_trick \[1\]"),
]


@pytest.mark.parametrize(("part", "values", "message"), ASKED)
def test_what_is_not_done_is_refused_by_name(copied_plain: Path, part: str, values: dict[str, Any], message: str) -> None:
    change(copied_plain / part / "config.json", **values)
    with pytest.raises(BundleError, match=message) as refusal:
        check_bundle(copied_plain)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thresholding": True}, "scheduler thresholding true is not supported"),
        ({"variance_type": "learned_range"}, "variance_type 'learned_range'"),
        ({"timestep_type": "continuous"}, "timestep_type 'continuous'"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas true"),
        ({"snr_shift_scale": 3.0}, "snr_shift_scale 3.0"),
        ({"predict_epsilon": False}, "predict_epsilon false"),
    ],
)
def test_schedules_that_are_not_followed_are_refused(copied: Path, values: dict[str, Any], message: str) -> None:
    change(copied / "scheduler" / "scheduler_config.json", **values)
    with pytest.raises(BundleError, match=message):
        check_bundle(copied)


def test_a_pipeline_with_another_network_is_refused(copied_plain: Path) -> None:
    index = copied_plain / "model_index.json"
    idle = {"safety_checker": ["stable_diffusion", "SafetyChecker"], "image_encoder": [None, None]}
    change(index, **idle, requires_safety_checker=True)
    assert check_bundle(copied_plain).conditioning.kind == "text"
    change(index, controlnet=["diffusers", "ControlNetModel"])
    with pytest.raises(BundleError, match=r"has a controlnet \(ControlNetModel\), which is not supported"):
        check_bundle(copied_plain)


def test_a_card_that_is_silent_about_scaled_latents_is_refused(copied: Path) -> None:
    change(copied / "vae" / "config.json", latents_mean=[0.0] * 4, latents_std=[2.0] * 4, scaling_factor=0.5)
    assert check_bundle(copied).latent.std == (0.5, 0.6, 0.7, 0.8)  # what a card says is believed
    tiny_bundles.write_card(copied, tiny_bundles.tiny_card("class-map", latent={"channels": 4, "factor": 8}))
    with pytest.raises(BundleError, match=r"write them into it: mean: \[0.0, .*\], std: \[4.0, "):
        check_bundle(copied)


def test_another_name_of_the_autoencoder_is_told(copied: Path) -> None:
    (copied / "vae").rename(copied / "vqvae")
    with pytest.raises(BundleError, match="lies in vqvae; rename that folder to vae"):
        check_bundle(copied)


def test_unknown_keys_that_ask_for_nothing_and_equal_widths_are_fine(copied_plain: Path) -> None:
    change(copied_plain / "unet" / "config.json", old=None, older=False, oldest=[], cross_attention_dim=[16, 16])
    change(copied_plain / "scheduler" / "scheduler_config.json", thresholding=False, skip_prk_steps=True)
    assert check_bundle(copied_plain).conditioning.kind == "text"


def test_latents_are_standardised_as_stable_diffusion_xl_does(copied_plain: Path) -> None:
    mean, std = [0.1, -0.2, 0.3, 0.0], [2.0, 3.0, 4.0, 5.0]
    change(copied_plain / "vae" / "config.json", latents_mean=mean, latents_std=std, scaling_factor=0.5)
    latent = read_card(copied_plain).latent
    assert latent.mean == pytest.approx(mean)
    assert latent.std == pytest.approx([2 * s for s in std])


def test_latents_are_standardised_as_stable_diffusion_3_does() -> None:
    vae = {"_class_name": "AutoencoderKL", "latent_channels": 2, "shift_factor": 0.06, "scaling_factor": 1.5}
    mean, std = latent_scale(vae)
    assert mean == [0.06, 0.06]
    assert std == pytest.approx([1 / 1.5] * 2)


def test_nobody_is_told_of_a_key_that_diffusers_itself_wrote(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_bundles.tiny_autoencoder_tiny().save_pretrained(tmp_path / "vae")
    log = logging.getLogger("diffusers.configuration_utils")  # it does not propagate
    log.addHandler(caplog.handler)
    try:
        load_network(tmp_path / "vae", "cpu")
    finally:
        log.removeHandler(caplog.handler)
    assert not caplog.records
