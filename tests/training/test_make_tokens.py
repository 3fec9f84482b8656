"""The network that draws tokens, in training: from images and a bundle to tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from streams import WORDS

import wsigen
from wsigen.base.errors import TrainingError
from wsigen.grids.compress import compress
from wsigen.models.network_config import TokenModelConfig
from wsigen.models.summariser import build_summariser, summarise
from wsigen.models.tiles import write_tiles
from wsigen.models.token_model import TokenDraw, sample_tokens
from wsigen.training import image_grids
from wsigen.training.autoencoder import build_vae
from wsigen.training.loop import train
from wsigen.training.make_tokens import TokenTask, new_token_model
from wsigen.training.recipes import AutoencoderNetwork, TokenRecipe
from wsigen.training.snapshot import identity_of

UNET = {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8}
LOOP = {"steps": 2, "batch": 4, "sample_every": 0, "learning_rate": 1e-3}
VIT = {"side": 4, "width": 16, "layers": 1, "heads": 2, "mlp": 16}
DATASET = {
    "root": ".",
    "classes": [{"name": "Tissue", "color": [200, 0, 0]}],
    "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 1.0}],
    "patch_px": 64,
    "overlap_px": 0,
    "sources": [{"kind": "unlabelled", "images": "*.png", "mpp": 0.5}],
}


class Means:
    """An extractor without a network."""

    name, version, sha256, dimension, side_px = "means", "1", "ab" * 32, 6, 16
    seen = 0

    def features(self, images: np.ndarray) -> np.ndarray:
        Means.seen += len(images)
        return np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1).astype(np.float32)

    def probabilities(self, features: np.ndarray) -> None:
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a denoiser that is told its tokens, and one that is told mean colours."""
    root = tmp_path_factory.mktemp("tokens")
    noise = np.random.default_rng(0).integers((150, 60, 120), (230, 140, 200), (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((384, 384), Image.Resampling.BICUBIC).save(root / "a.png")
    (root / "dataset.yaml").write_text(yaml.safe_dump(DATASET))
    torch.manual_seed(0)
    build_vae(AutoencoderNetwork(channels=(8, 8, 8), latent_channels=4, norm_groups=4), 64).save_pretrained(root / "vae")
    denoiser = {"dataset": "dataset.yaml", "autoencoder": "vae", "conditioning": {"kind": "none"}}
    denoiser |= {"network": UNET, "loop": LOOP, "bundle": WORDS}
    grid = {"encoder": "means", "cell_um": 16.0, "summariser": VIT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_grids, "encoder_named", lambda name, device: Means())
        for name, told in (("told", grid), ("colours", {"noise": 0.1})):
            (root / f"{name}.yaml").write_text(yaml.safe_dump({**denoiser, "grid": told}))
            wsigen.train_denoiser(root / f"{name}.yaml", out=root / name)
    return root


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_grids, "encoder_named", lambda name, device: Means())


def recipe(folder: Path, name: str, **changes: Any) -> Path:
    content = {"dataset": "dataset.yaml", "bundle": "told/bundle", "network": {"hidden": 64, "depth": 1}, "loop": LOOP}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**content, **changes}))
    return file


def test_from_images_to_tiles(folder: Path, tmp_path: Path) -> None:
    Means.seen = 0
    bundle = wsigen.train_tokens(recipe(folder, "tokens", grids="told/grids"), out=tmp_path / "out").result
    assert bundle is not None
    assert Means.seen == 0  # the denoiser's training has made the grids
    files = write_tiles(bundle, tmp_path / "tiles", "overview", count=2, steps=1, token_steps=2)
    assert [Image.open(file).size for file in files] == [(64, 64)] * 2
    again = wsigen.train_tokens(recipe(folder, "tokens"), out=tmp_path / "again")
    assert Means.seen == 12 * 12
    assert again.scalars == pytest.approx(wsigen.train_tokens(folder / "tokens.yaml", out=tmp_path / "third").scalars)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "colours/bundle"}, "is told no tokens; train its denoiser with 'grid: {encoder: NAME}'"),
        ({"dataset": "large.yaml"}, "has windows of 64 px, the dataset of 128; set patch_px"),
        ({"dataset": "coarse.yaml"}, r"has levels of \[0.5, 1.0\] um/px, the dataset of \[0.5, 1.5\]"),
    ],
)
def test_a_bundle_of_something_else_is_refused(folder: Path, tmp_path: Path, change: dict[str, str], message: str) -> None:
    (folder / "large.yaml").write_text(yaml.safe_dump({**DATASET, "patch_px": 128}))
    levels = [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 1.5}]
    (folder / "coarse.yaml").write_text(yaml.safe_dump({**DATASET, "levels": levels}))
    with pytest.raises(TrainingError, match=message):
        wsigen.train_tokens(recipe(folder, "wrong", **change), out=tmp_path / "out")


def test_grids_of_another_encoder_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Means, "sha256", "cd" * 32)
    with pytest.raises(
        TrainingError, match=r"a grid there is of encoder 'means' \(sha256 cdcd.*the model follows 'means' \(sha256 abab"
    ):
        wsigen.train_tokens(recipe(folder, "other"), out=tmp_path / "out")


def test_grids_of_other_cells_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    compress(folder / "a.png", tmp_path / "files/a.wsz", encoder=Means(), cell_um=8.0, mpp=0.5)
    with pytest.raises(TrainingError, match=r"files: a grid there has cells of 8 um; the model follows cells of 16 um"):
        wsigen.train_tokens(recipe(folder, "cells", files=str(tmp_path / "files")), out=tmp_path / "out")


def test_it_begins_with_places_and_adds_nothing() -> None:
    network = new_token_model(TokenModelConfig(tokens=5, width=16, levels=2, hidden=64, depth=2, heads=1))
    places = network.pos_embed[0]
    assert not network.pos_embed.requires_grad
    assert places[3, 0] == pytest.approx(np.sin(3))
    assert places[3, 32] == pytest.approx(np.cos(3))
    assert (network(torch.randn(2, 5, 16), torch.tensor([0, 999]), torch.tensor([0, 1])) == 0).all()


class Signs:
    """Windows of one sign at each level; some of which nothing is known."""

    def batch(self, step: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((3, step))
        levels = rng.integers(0, 2, count)
        return self.of(levels) * (rng.random((count, 1, 1, 1)) > 0.2), levels

    def of(self, levels: np.ndarray) -> np.ndarray:
        windows = np.ones((len(levels), 7, 4, 4), np.float32)
        windows[:, :6] *= np.linspace(-1, 1, 6, dtype=np.float32)[:, None, None]
        windows[levels == 1, :6] *= -1
        windows[levels == 0, :, 2:] = windows[levels == 0, :, :, 2:] = 0  # two parts a side, in the corner
        return windows


def test_drawn_tokens_are_those_of_their_level(tmp_path: Path) -> None:
    torch.manual_seed(0)
    summariser = build_summariser({"_class_name": "ViTSummariser", "dimension": 6, "levels": 2, **VIT}).eval()
    config = TokenModelConfig(tokens=summariser.tokens, width=16, levels=2, hidden=64, depth=1, heads=1)
    loop = {"steps": 120, "batch": 16, "learning_rate": 3e-3, "ema": 0.9, "sample_every": 0}
    settings = TokenRecipe(dataset=Path("none"), bundle=Path("none"), loop=loop)
    task = TokenTask(settings, new_token_model(config), summariser, (2, 4), Signs())
    train(task, settings.loop, tmp_path, identity_of(settings.decisive("bundle")))
    levels = torch.tensor([0, 1])
    clean = task.tokens(torch.from_numpy(Signs().of(levels.numpy())), levels)
    alone = summarise(summariser, torch.from_numpy(Signs().of(np.array([0])))[:, :, :2, :2], levels[:1])
    torch.testing.assert_close(clean[:1], alone)
    for level in (0, 1):
        drawn = torch.from_numpy(sample_tokens(task.network.eval(), TokenDraw(level, [1, 2], 10)))
        own, other = ((drawn - clean[i]).square().mean() for i in (level, 1 - level))
        assert own < 0.2 * other
