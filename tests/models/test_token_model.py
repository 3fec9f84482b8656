"""ZoomLDM's conditioning diffusion model, and tiles from the tokens that it draws."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from wsigen.base.errors import BundleError, ConfigError
from wsigen.models.bundle import check_bundle
from wsigen.models.model import load_model
from wsigen.models.tiles import TileSettings, sample_tiles, write_tiles
from wsigen.models.token_model import TokenDraw, load_token_model, read_release, sample_tokens
from wsigen.models.zoomldm import import_zoomldm

sys.path.insert(0, str(Path(__file__).parent))

import released


@pytest.fixture(scope="module")
def checkpoint() -> tuple[dict[str, Any], Any]:
    return released.make_token_checkpoint()


@pytest.fixture(scope="module")
def bundle(checkpoint: tuple[dict[str, Any], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a whole release; its crops are of 16 latent px, as the tests' are."""
    folder = tmp_path_factory.mktemp("released")
    torch.save(released.make_checkpoint(8)[0], folder / "weights.ckpt")
    torch.save(checkpoint[0], folder / "tokens.pt")
    import_zoomldm(folder / "weights.ckpt", folder / "bundle", tokens=folder / "tokens.pt")
    card = folder / "bundle" / "wsigen.yaml"
    card.write_text(card.read_text().replace("crop_latent: 64", "crop_latent: 16"))
    return folder / "bundle"


@torch.no_grad()
def test_the_network_is_the_released_one(bundle: Path, checkpoint: tuple[Any, Any]) -> None:
    x, t, level, expected = checkpoint[1]
    assert torch.allclose(load_token_model(bundle)(x, t, level), expected, atol=1e-4)


def test_tokens_are_drawn_by_ddim(bundle: Path) -> None:
    """diffusers' own steps over the same timesteps."""
    network, steps = load_token_model(bundle), 4
    found = sample_tokens(network, TokenDraw(2, [5, 6], steps))
    assert found.shape == (2, 65, 64)
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    from wsigen.models.token_model import _noise

    y = torch.from_numpy(_noise(6, network.config))[None]
    taken = [999, 666, 333, 0]
    with torch.no_grad():
        for t, after in zip(taken, [*taken[1:], None], strict=True):
            x0 = network(y, torch.tensor([t]), torch.tensor([2]))
            abar, following = scheduler.alphas_cumprod[t], 1.0 if after is None else scheduler.alphas_cumprod[after]
            eps = (y - abar.sqrt() * x0) / (1 - abar).sqrt()
            y = following**0.5 * x0 + (1 - following) ** 0.5 * eps
    assert np.allclose(found[1], y[0].numpy(), atol=1e-3)
    assert not np.allclose(found[0], found[1])
    assert np.allclose(sample_tokens(network, TokenDraw(2, [6], steps))[0], found[1], atol=1e-4)


def test_tiles_follow_their_tokens_and_seeds(bundle: Path) -> None:
    model = load_model(bundle)
    tokens = np.random.default_rng(0).normal(size=(2, 65, 64)).astype(np.float32)
    settings = TileSettings(guidance=0.75, steps=2)
    first, second = sample_tiles(model, tokens, [1, 1], settings)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, second)
    again, other = sample_tiles(model, tokens[[0, 0]], [1, 2], settings)
    assert np.array_equal(again, first)
    assert not np.array_equal(other, first)


def test_tiles_are_written_and_say_that_they_are_synthetic(bundle: Path, tmp_path: Path) -> None:
    files = write_tiles(bundle, tmp_path / "tiles", "5x", count=5, seed=3, steps=1, token_steps=2)
    assert [f.name for f in files] == [f"5x-{seed:06d}.png" for seed in range(3, 8)]
    with Image.open(files[0]) as image:
        assert image.size == (64, 64)
        assert "synthetic" in image.info["Description"]
    with pytest.raises(ConfigError, match=r"no '5' \(did you mean '5x'\?\); it has 20x, 10x"):
        write_tiles(bundle, tmp_path, "5")


def saved(state: object, tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "other.pt")
    return tmp_path / "other.pt"


def test_what_is_not_the_release_is_refused(bundle: Path, checkpoint: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    content = checkpoint[0]
    lacking = {name: tensor for name, tensor in content["ema"].items() if name != "final_layer.linear.bias"}
    with pytest.raises(BundleError, match=r"lacks 1 tensors, e\.g\. final_layer\.linear\.bias"):
        read_release(saved({**content, "ema": lacking}, tmp_path))
    with pytest.raises(BundleError, match="it is no conditioning diffusion model"):
        read_release(saved({"ema": {"cond_proj.weight": torch.zeros(8, 4)}}, tmp_path))
    other = saved(released.make_token_checkpoint(tokens=17)[0], tmp_path)
    weights = bundle.parent / "weights.ckpt"
    with pytest.raises(BundleError, match=r"draws 17 tokens .* the summariser gives 65 tokens"):
        import_zoomldm(weights, tmp_path / "bundle", tokens=other)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "heads 7 must divide hidden"),
        ({"width": 32}, "token_model width is 32, but of the summariser it is 64"),
        ({"levels": 5}, "token_model levels is 5, but of the summariser it is 8"),
        ({"tokens": 64}, "token_model tokens is 64, but of the summariser it is 65"),
        ({"depth": "many"}, "depth"),
    ],
)
def test_a_network_of_other_tokens_than_its_bundle_s_is_refused(
    bundle: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(bundle, tmp_path / "other")
    file = tmp_path / "other" / "token_model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BundleError, match=message) as refusal:
        check_bundle(tmp_path / "other")
    assert "\n" not in str(refusal.value)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.mark,))


def test_code_beside_its_options_is_not_run(checkpoint: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="could run code when read"):
        read_release(saved({**checkpoint[0], "opt": Evil(tmp_path / "ran")}, tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_bundle_without_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="draws no tokens: it has no token_model; 'wsigen train tokens' trains one"):
        load_token_model(tmp_path)
