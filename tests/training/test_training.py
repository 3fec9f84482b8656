"""Tiny networks train, resume to the same state, stop at a loss that is not finite, and export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from wsigen.cohort.augment import dihedral, jitter_stain
from wsigen.training.autoencoder import AutoencoderTraining
from wsigen.training.budget import Budget, cosine_rate
from wsigen.training.crops import CropSource, pixel_batch
from wsigen.training.denoiser import DenoiserTraining
from wsigen.training.export import TrainedModel, export_bundle
from wsigen.training.latents import LatentCrops, LatentImage, channel_statistics, encode
from wsigen.training.preview import sample_grid
from wsigen.training.settings import AutoencoderSettings, DenoiserSettings, TrainingSettings

AE = AutoencoderSettings(channels=(8, 8, 8, 8), norm_groups=4, crop_px=32, batch=2, adversary_start=0.3)
UNET = DenoiserSettings(channels=(8, 16), layers=1, norm_groups=4, head_dim=8, small_crop=(8, 2), large_crop=(16, 1))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def crops() -> CropSource:
    rgb = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    return CropSource(rgb, np.array([[48, 48], [20, 70]], dtype=np.int32))


def images(step: int) -> torch.Tensor:
    source = [crops()]
    return torch.from_numpy(pixel_batch(source, source, side_px=32, batch=2, overview_share=0.3, seed=(0, step)))


def latent_crops() -> LatentCrops:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (24, 24)).astype(np.uint8)
    stored = [LatentImage(rng.normal(size=(8, 24, 24)).astype(np.float16), labels, level) for level in (0, 1)]
    mean, std = channel_statistics(stored)
    assert len(mean) == len(std) == 8
    return LatentCrops(stored, mean, std)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_autoencoder_resumes_to_the_same_state(tmp_path: Path) -> None:
    whole, part, resumed = (AutoencoderTraining(AE, seed=1) for _ in range(3))
    losses = [whole.train_step(images(step), step / 3) for step in range(3)]
    assert np.isfinite(losses).all()
    for step in range(2):
        part.train_step(images(step), step / 3)
    part.save(tmp_path / "a.pt")
    resumed.load(tmp_path / "a.pt")
    resumed.train_step(images(2), 2 / 3)
    assert resumed.step == 3
    assert same(whole.model, resumed.model)
    assert same(whole.adversary, resumed.adversary)


def test_training_the_decoder_alone_keeps_the_encoder(tmp_path: Path) -> None:
    first, second = (
        AutoencoderTraining(AE, seed=1),
        AutoencoderTraining(AE.for_decoder(), 2, decoder_only=True),
    )
    first.save(tmp_path / "a.pt")
    second.load_networks(tmp_path / "a.pt")
    second.train_step(images(0), 0.5)
    assert same(first.model.encoder, second.model.encoder)
    assert same(first.model.quant_conv, second.model.quant_conv)
    assert not same(first.model.decoder, second.model.decoder)


def test_denoiser_resumes_to_the_same_state(tmp_path: Path) -> None:
    source = latent_crops()
    batch = [source.batch(8, 2, 0.5, 0.2, (0, step)) for step in range(3)]
    whole, part, resumed = (DenoiserTraining(UNET, 8, seed=1) for _ in range(3))
    assert np.isfinite([whole.train_step(*batch[step], step / 3) for step in range(3)]).all()
    for step in range(2):
        part.train_step(*batch[step], step / 3)
    part.save(tmp_path / "d.pt")
    resumed.load(tmp_path / "d.pt")
    resumed.train_step(*batch[2], 2 / 3)
    assert same(whole.model, resumed.model)
    assert same(whole.average, resumed.average)
    assert [p.name for p in tmp_path.iterdir()] == ["d.pt"]


def test_a_budget_of_steps_ends_a_run() -> None:
    training, calls = DenoiserTraining(UNET, 8, seed=1), []
    source = latent_crops()
    budget = Budget(minutes=1.0, steps=2)
    training.run(lambda step: source.batch(8, 1, 0.5, 0.2, (0, step)), budget, 60.0, lambda: calls.append(1))
    assert (training.step, len(calls)) == (2, 1)


def test_a_loss_that_is_not_finite_names_the_step() -> None:
    training = AutoencoderTraining(AE, seed=1)
    with pytest.raises(FloatingPointError, match="autoencoder's loss is nan at step 0"):
        training.train_step(torch.full((1, 3, 32, 32), float("nan")), 0.0)


def test_learning_rate_warms_up_and_decays() -> None:
    assert cosine_rate(1.0, 0.0, step=0, warmup=10) == pytest.approx(0.1)
    assert cosine_rate(1.0, 0.0, step=50) == pytest.approx(1.0)
    assert cosine_rate(1.0, 1.0, step=50) == pytest.approx(0.01)


def test_encoding_by_tiles_has_the_shape_of_the_latents() -> None:
    model = AutoencoderTraining(AE, seed=1).model.eval()
    assert encode(model, np.ascontiguousarray(crops().rgb[:64]), tile_px=32, margin_px=16).shape == (8, 8, 12)


def test_jitter_leaves_glass_alone_and_dihedral_zero_is_identity() -> None:
    glass = np.full((4, 4, 3), 244, dtype=np.uint8)
    assert np.abs(jitter_stain(glass, np.random.default_rng(0)).astype(int) - glass).max() <= 1
    rgb = crops().rgb
    assert np.array_equal(dihedral(rgb, 0), rgb)
    assert len({dihedral(rgb, variant).tobytes() for variant in range(8)}) == 8


def test_export_round_trip(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

    vae, unet = AutoencoderTraining(AE, seed=1).model.eval(), DenoiserTraining(UNET, 8, seed=1).average.eval()
    names = "psnr_db colour_error colour_shift ae_steps decoder_steps unet_steps unet_loss"
    names += " ae_minutes decoder_minutes unet_minutes"
    figures = dict.fromkeys(names.split(), 1.0)
    mean, std = [0.0] * 8, [1.0] * 8
    settings = TrainingSettings(autoencoder=AE, denoiser=UNET)
    for _ in range(2):  # the second replaces the first
        export_bundle(TrainedModel(vae, unet, mean, std, figures), settings, tmp_path / "bundle")
    bundle = tmp_path / "bundle"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    description = yaml.safe_load((bundle / "wsigen.yaml").read_text())
    assert [c["name"] for c in description["classes"]] == [
        "Glass",
        "Tumor",
        "Stroma",
        "Immune cells",
        "Other",
    ]
    assert description["levels"][1] == {"name": "overview", "mpp": 2.8}
    assert "no clinical or scientific use" in " ".join((bundle / "README.md").read_text().split())
    loaded_vae = AutoencoderKL.from_pretrained(bundle / "vae")
    loaded_unet = UNet2DModel.from_pretrained(bundle / "unet")
    scheduler = DDIMScheduler.from_pretrained(bundle / "scheduler")
    assert scheduler.config["prediction_type"] == "v_prediction"
    assert not scheduler.config["clip_sample"]
    x = torch.zeros(1, 3, 32, 32)
    assert torch.allclose(loaded_vae.float().encode(x).latent_dist.mode(), vae.encode(x).latent_dist.mode(), atol=0.02)
    grid = sample_grid(loaded_unet.float(), loaded_vae.float(), mean, std, steps=2, guidance=0.5, side=8)
    assert grid.size == (6 * 64, 16 + 2 * 64)
