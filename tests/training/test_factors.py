"""Denoisers and networks of grids on latents of any factor, of a ``VQModel`` as well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
import torch
import yaml
from PIL import Image
from streams import WORDS, Crops

import wsigen
from wsigen.base.errors import BundleError, TrainingError
from wsigen.models.bundle import check_bundle
from wsigen.training.autoencoder import build_vae, channels_of, factor_of, load_vae
from wsigen.training.autoencoder_task import AutoencoderTask
from wsigen.training.recipes import AutoencoderNetwork, AutoencoderRecipe

UNET = {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8}
LOOP = {"steps": 2, "batch": 4, "sample_every": 0, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a drawing, and autoencoders of the factors 4 and 16."""
    root = tmp_path_factory.mktemp("factors")
    noise = np.random.default_rng(0).integers((150, 60, 120), (230, 140, 200), (64, 64, 3)).astype(np.uint8)  # pink: tissue
    Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC).save(root / "a.png")
    ring = [[0, 0], [512, 0], [512, 300], [0, 300], [0, 0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "Tumor"}}}
    (root / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    dataset = {
        "root": ".",
        "classes": [{"name": "Tumor", "color": [200, 0, 0]}],
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": 128,
        "sources": [{"kind": "annotated", "images": "*.png", "mpp": 0.5}],
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    torch.manual_seed(0)
    tiny_bundles.tiny_vq().save_pretrained(root / "vq4")
    build_vae(AutoencoderNetwork(channels=(8,) * 5, latent_channels=4, norm_groups=4), 64).save_pretrained(root / "kl16")
    return root


def recipe(folder: Path, name: str, **more: object) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"dataset": "dataset.yaml", "network": UNET, "loop": LOOP, **more}))
    return file


@pytest.mark.parametrize(("autoencoder", "factor", "channels"), [("vq4", 4, 3), ("kl16", 16, 4)])
def test_from_an_autoencoder_of_any_factor_to_a_slide_with_a_grid(
    folder: Path, tmp_path: Path, autoencoder: str, factor: int, channels: int
) -> None:
    vae = load_vae(folder / autoencoder)
    assert (factor_of(vae), channels_of(vae)) == (factor, channels)
    denoiser = recipe(folder, f"{autoencoder}-denoiser", autoencoder=autoencoder, bundle=WORDS, grid={})
    bundle = wsigen.train_denoiser(denoiser, out=tmp_path / "denoiser").result
    grid = recipe(folder, f"{autoencoder}-grid", bundle=str(bundle), sampling={"steps": 2})
    drawn = wsigen.train_grid(grid, out=tmp_path / "grid").result
    assert drawn is not None
    card = check_bundle(drawn)
    assert min(card.latent.std) > 1e-3
    data = card.trained_on
    assert data is not None
    assert (len(data.dataset) >= 16, data.images, data.groups, data.held_out_groups) == (True, 1, 1, 0)
    assert data.levels["patch"]["Tumor"].images == 1
    counted = [data.levels["patch"][name].patches for name in ("Tumor", "(not labelled)")]
    assert counted[0] > 0
    assert f"| patch | Tumor | {counted[0]} | 1 |" in (drawn / "README.md").read_text()
    assert (card.latent.factor, card.latent.channels, card.crop_latent) == (factor, channels, 128 // factor)
    assert card.grid is not None
    assert card.grid.network is not None
    assert card.grid.network.crops == (128 // factor,)
    settings = {"model": str(drawn), "class_name": "Tumor", "size": "512x512", "steps": 2}
    assert Path(wsigen.generate(tmp_path / "s.ome.tiff", **settings).slide).is_file()


def test_an_autoencoder_of_another_factor_can_be_trained(tmp_path: Path) -> None:
    network = {"channels": (8, 8, 8), "latent_channels": 4, "norm_groups": 4}
    task = AutoencoderTask(AutoencoderRecipe(dataset=Path("none"), crop_px=32, network=network), Crops(32))
    batch = task.draw(0, 0)
    assert batch["noise"].shape[-2:] == (8, 8)
    modules = {name: player.module for name, player in task.players().items()}
    assert torch.isfinite(task.loss("model", modules, batch, 0.0)[0])


def test_what_cannot_be_trained_on_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a VQModel cannot be trained here"):
        AutoencoderTask(AutoencoderRecipe(dataset=Path("none"), start=folder / "vq4"), Crops(32))
    with pytest.raises(TrainingError, match=r"channels has 7 levels, .* crop_px must be a multiple of 64"):
        build_vae(AutoencoderNetwork(channels=(8,) * 7, norm_groups=4), 32)
    tiny_bundles.tiny_autoencoder_tiny().save_pretrained(tmp_path / "tiny")
    with pytest.raises(TrainingError, match="a AutoencoderTiny; denoisers are trained on latents of AutoencoderKL or VQModel"):
        load_vae(tmp_path / "tiny")
    config = tmp_path / "tiny" / "config.json"
    config.write_text(json.dumps({"_class_name": "VQModel", "norm_type": "spatial"}))
    with pytest.raises(BundleError, match="norm_type 'spatial' is not supported"):
        load_vae(tmp_path / "tiny")
