"""Added latents begin without effect; figures on held-out crops are those of a hand computation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dataset.dataset_making import settings, tiles
from streams import Crops

from wsigen.base.errors import ConfigError
from wsigen.dataset.crops import CropBatch
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.latents import LatentBatch
from wsigen.training.autoencoder import build_vae, load_vae, measure_autoencoder, with_more_latents
from wsigen.training.autoencoder_task import AutoencoderTask, write_figures
from wsigen.training.denoiser_task import quartered
from wsigen.training.recipes import AutoencoderNetwork, AutoencoderRecipe, read_recipe

NETWORK = AutoencoderNetwork(channels=(8, 8, 8, 8), latent_channels=4, norm_groups=4)


@torch.no_grad()
def test_a_widened_autoencoder_reconstructs_as_before_and_can_learn_from_the_new_channels() -> None:
    torch.manual_seed(0)
    vae = build_vae(NETWORK, 32).eval()
    wide = with_more_latents(vae, 3).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    before, after = vae.encode(x).latent_dist, wide.encode(x).latent_dist
    assert after.mean.shape[1] == 7
    torch.testing.assert_close(after.mean[:, :4], before.mean)
    torch.testing.assert_close(after.logvar[:, :4], before.logvar)
    torch.testing.assert_close(wide.decode(after.mean).sample, vae.decode(before.mean).sample)
    with torch.enable_grad():
        wide.decode(wide.encode(x).latent_dist.mean).sample.square().mean().backward()
    assert wide.decoder.conv_in.weight.grad is not None
    assert wide.decoder.conv_in.weight.grad[:, 4:].abs().max() > 0


def test_training_goes_on_from_saved_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build_vae(NETWORK, 32)
    vae.save_pretrained(tmp_path / "vae")
    recipe = AutoencoderRecipe(dataset=Path("none"), start=tmp_path, crop_px=32, added_latents=2, latent_noise=0.5)
    task = AutoencoderTask(recipe, Crops(32))
    assert task.vae.config["latent_channels"] == 6
    for name, value in load_vae(tmp_path).decoder.up_blocks.state_dict().items():
        torch.testing.assert_close(task.vae.decoder.up_blocks.state_dict()[name], value)
    batch = task.draw(0, 0)
    assert batch["added"].shape == batch["noise"].shape
    deviations = batch["added"].flatten(1).std(dim=1)
    assert (deviations < 0.7).all()
    assert len(set(deviations.tolist())) == len(deviations)  # every crop its own


def test_added_latents_need_something_to_be_added_to(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("dataset: c.yaml\nadded_latents: 4\n")
    with pytest.raises(ConfigError, match="added_latents needs 'start'"):
        read_recipe(AutoencoderRecipe, file)


class Flat:
    """Crops of one grey, the left half of their map background."""

    def batch(self, step: int, count: int) -> CropBatch:
        images = np.full((count, 32, 32, 3), 100, np.uint8)
        maps = np.ones((count, 4, 4), np.uint8)
        maps[:, :, :2] = 0
        return CropBatch(images, maps, np.zeros(count, np.int64), np.ones(count, bool))


class Shifted(torch.nn.Module):
    """Off by 51 grey levels on the left half and by 10.2 on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x))

    def decode(self, z: torch.Tensor) -> SimpleNamespace:
        off = torch.full_like(z, 0.08)
        off[..., :16] = 0.4
        return SimpleNamespace(sample=z + off)


def test_figures_count_tissue_alone() -> None:
    figures = measure_autoencoder(Shifted(), Flat(), (0,), count=6, batch=2)  # type: ignore[arg-type]
    assert figures["crops"] == 6
    assert figures["colour_error"] == pytest.approx(10.0, abs=0.51)
    assert figures["colour_shift"] == pytest.approx(figures["colour_error"])
    assert figures["psnr_db"] == pytest.approx(20 * np.log10(255 / figures["colour_error"]))
    assert measure_autoencoder(Shifted(), Flat(), (0, 1), count=2) == {}  # type: ignore[arg-type]


def test_quarters_put_together_are_the_crops() -> None:
    rng = np.random.default_rng(0)
    latents, maps = rng.normal(size=(3, 2, 8, 8)).astype(np.float32), rng.integers(0, 4, (3, 8, 8)).astype(np.uint8)
    cut = quartered(LatentBatch(latents, maps, np.array([0, 1, 0]), np.array([True, False, True])))
    assert cut.latents.shape == (12, 2, 4, 4)
    assert cut.levels.tolist() == [0] * 4 + [1] * 4 + [0] * 4
    for i in range(3):
        a, b, c, d = cut.latents[4 * i : 4 * i + 4]
        np.testing.assert_array_equal(np.block([[[a, b], [c, d]]]).squeeze(), latents[i])
        a, b, c, d = cut.class_maps[4 * i : 4 * i + 4]
        np.testing.assert_array_equal(np.block([[a, b], [c, d]]), maps[i])


@pytest.mark.parametrize(("depth", "patch_px"), [(4, 72), (5, 72), (5, 64)])
def test_figures_are_measured_on_whole_latent_px_whatever_the_patch(depth: int, patch_px: int, tmp_path: Path) -> None:
    tiles(tmp_path / "tiles", 2, 1)
    source, levels = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}, [{"name": "patch", "mpp": 0.5}]
    split = {"groups": {"pattern": r"(P\d)_"}, "held_out": ["P1"]}
    config = settings(tmp_path.resolve(), source, levels=levels, patch_px=patch_px, **split)
    network = AutoencoderNetwork(channels=(4,) * depth, latent_channels=2, norm_groups=2)
    recipe = AutoencoderRecipe(dataset=tmp_path, crop_px=64, network=network)
    figures = write_figures(build_vae(network, 64), recipe, open_dataset(config, tmp_path / "cache"), tmp_path, 3)
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert np.isfinite(figures["psnr_db"])
