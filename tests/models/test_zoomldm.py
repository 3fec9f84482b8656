"""ZoomLDM's released checkpoints as bundles: every network gives what an independent run of the same tensors gives."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, VQModel

from wsigen.base.errors import BundleError
from wsigen.models.card import read_card
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.model import load_model
from wsigen.models.summariser import load_summariser
from wsigen.models.zoomldm import import_zoomldm

sys.path.insert(0, str(Path(__file__).parent))

import released

SUMMARY_LAYER = "cond_stage_model.encoder.layers.encoder_layer_999999999.ln_1.weight"


@pytest.fixture(scope="module", params=[8, 4], ids=["brca", "naip"])
def levels(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def checkpoint(levels: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return released.make_checkpoint(levels)


@pytest.fixture(scope="module")
def bundle(checkpoint: tuple[dict[str, Any], Any], levels: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    torch.save(checkpoint[0], folder / "weights.ckpt")
    import_zoomldm(folder / "weights.ckpt", folder / "bundle")
    return folder / "bundle"


@torch.no_grad()
def test_its_networks_are_the_released_ones(bundle: Path, checkpoint: tuple[Any, dict[str, Any]]) -> None:
    """The U-Net's are the running mean: the last step's are others."""
    results = checkpoint[1]
    x, t, context, expected = results["unet"]
    found = UNet2DConditionModel.from_pretrained(bundle / "unet").eval()(x, t, context).sample
    assert torch.allclose(found, expected, atol=1e-4)
    image, z, picture = results["vae"]
    vae = VQModel.from_pretrained(bundle / "vae").eval()
    assert torch.allclose(vae.encode(image).latents, z, atol=1e-4)
    assert torch.allclose(vae.decode(z).sample, picture, atol=1e-4)
    cells, level, tokens = results["summariser"]
    assert torch.allclose(load_summariser(bundle, "cpu")(cells[None], torch.tensor([level]))[0], tokens, atol=1e-4)


def test_its_card_says_how_it_is_told(bundle: Path, levels: int) -> None:
    card = read_card(bundle)
    assert card.name == {8: "zoomldm-brca", 4: "zoomldm-naip"}[levels]
    mpp = [level.mpp for level in card.levels]
    assert mpp == {8: [0.5, 1, 2, 4, 8, 16, 32, 64], 4: [1, 2, 4, 8]}[levels]
    assert (card.latent.channels, card.latent.factor, card.latent.std, card.latent.image_range) == (3, 4, (1,) * 3, (-1, 1))
    assert card.grid is not None
    assert card.grid.parts == (1, 2, 4, 8, 8, 8, 8, 8)[:levels]
    # a crop of 64 latent px covers as many cells as the window has parts, up to 8
    assert [64 * 4 * m / card.grid.cell_um for m in mpp[:4]] == [1, 2, 4, 8]
    assert card.training_data
    assert "MIT" in card.licence


def test_it_is_a_model_like_any_other(bundle: Path, checkpoint: tuple[Any, dict[str, Any]]) -> None:
    model = load_model(bundle)
    assert np.allclose(model.abar[[0, 499, 999]], [0.9985, 0.1158, 0.0001], atol=1e-3)
    assert (model.prediction_type, model.clip) == ("epsilon", None)
    latents = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    window = np.random.default_rng(1).normal(size=(13, 2, 2)).astype(np.float32)
    window[-1] = 1
    told, null = model.predict(latents[[0, 0]], 500, [Condition(grid=window), NULL], 1)
    unet, tokens = UNet2DConditionModel.from_pretrained(bundle / "unet").eval(), load_summariser(bundle, "cpu")
    with torch.no_grad():
        context = tokens(torch.from_numpy(window[None, :-1]), torch.tensor([1]))
        both = torch.cat([context, torch.zeros_like(context)])
        expected = unet(torch.from_numpy(latents[[0, 0]]), 500, both).sample.numpy()
    assert np.allclose(np.stack([told, null]), expected, atol=1e-4)


def saved(state: object, tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "other.ckpt")
    return tmp_path / "other.ckpt"


def test_variants_of_a_checkpoint(tmp_path: Path) -> None:
    """Without a running mean, in Lightning's wrapping, and with the names of older torchvision."""
    state, results = released.make_checkpoint(8, averaged=False)
    state = {re.sub(r"\.mlp\.0\.", ".mlp.linear_1.", re.sub(r"\.mlp\.3\.", ".mlp.linear_2.", n)): v for n, v in state.items()}
    _, notes = import_zoomldm(saved({"state_dict": state, "epoch": 3}, tmp_path), tmp_path / "bundle", "mine", "CC0-1.0")
    assert "no running mean" in notes[0]
    card = read_card(tmp_path / "bundle")
    assert (card.name, card.licence) == ("mine", "CC0-1.0")
    cells, level, tokens = results["summariser"]
    summariser = load_summariser(tmp_path / "bundle", "cpu")
    with torch.no_grad():
        assert torch.allclose(summariser(cells[None], torch.tensor([level]))[0], tokens, atol=1e-4)


def test_the_schedule_is_the_released_one(bundle: Path, checkpoint: tuple[dict[str, Any], Any]) -> None:
    found = DDIMScheduler.from_pretrained(bundle / "scheduler").alphas_cumprod
    assert torch.allclose(found, checkpoint[0]["alphas_cumprod"], atol=1e-5)


FIRST = "diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model_ema." + FIRST.replace(".", "")), "its running mean lacks 1 tensors, e.g. model_ema"),
        (lambda s: s.pop("first_stage_model.quantize.embedding.weight"), "quantize.embedding.weight"),
        (lambda s: s.pop("first_stage_model.decoder.conv_in.weight"), "the autoencoder lacks 1 tensors"),
        (lambda s: s.update({"cond_stage_model.new": torch.zeros(1)}), "the summariser has no place for 1 tensors, e.g. new"),
        (lambda s: s.update({"cond_stage_model.mag_embedding.weight": torch.zeros(5, 64)}), "5 magnifications; 8 and 4 are"),
        (lambda s: s.update({"cond_stage_model.dim_reduce.bias": torch.zeros(3)}), r"dim_reduce.bias is \[3\]"),
        (lambda s: s.update({"cond_stage_model.dim_reduce.bias": torch.zeros(64, dtype=torch.int8)}), "of torch.int8"),
        (lambda s: s.update({"alphas_cumprod": torch.linspace(1, 0, 1000)}), "noise levels"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("cond_stage_model.")], r"no tensors cond_stage_model.\*"),
        (lambda s: s.update({SUMMARY_LAYER: torch.zeros(1)}), "has 1000000000 layers; at most 64 are taken"),
        (lambda s: s.update({"big": torch.zeros(1).expand(10**12)}), "more numbers than it has bytes"),
        (lambda s: s.clear(), r"no tensors model.diffusion_model.\*"),
    ],
)
def test_what_is_not_the_release_is_refused(
    checkpoint: tuple[dict[str, Any], Any], tmp_path: Path, change: Any, message: str
) -> None:
    state = dict(checkpoint[0])
    change(state)
    with pytest.raises(BundleError, match=message) as refusal:
        import_zoomldm(saved(state, tmp_path), tmp_path / "bundle")
    assert "\n" not in str(refusal.value)
    assert not any(f.is_dir() for f in tmp_path.iterdir())


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, new: bool) -> None:
    mark = tmp_path / "ran"
    file = tmp_path / "weights.ckpt"
    if new:
        torch.save({"state_dict": Evil(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(BundleError, match="could run code when read") as refusal:
        import_zoomldm(file, tmp_path / "bundle")
    assert "\n" not in str(refusal.value)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"plain text", pickle.dumps([1, 2]), pickle.dumps({"a": 1})])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.ckpt"
    file.write_bytes(content)
    with pytest.raises(BundleError) as refusal:
        import_zoomldm(file, tmp_path / "bundle")
    assert "\n" not in str(refusal.value)
    with pytest.raises(BundleError, match="no such file"):
        import_zoomldm(tmp_path / "nowhere", tmp_path / "bundle")


def test_other_objects_are_refused_and_folders_kept(tmp_path: Path, checkpoint: tuple[dict[str, Any], Any]) -> None:
    with pytest.raises(BundleError, match=r"argparse.Namespace"):
        import_zoomldm(saved({**checkpoint[0], "args": argparse.Namespace()}, tmp_path), tmp_path / "bundle")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    file = saved(checkpoint[0], tmp_path)
    with pytest.raises(BundleError, match=r"exists already; .*--overwrite"):
        import_zoomldm(file, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "mine.txt").exists()
    with pytest.raises(BundleError, match=r"is no bundle \(no wsigen.yaml\)"):
        import_zoomldm(file, tmp_path / "bundle", overwrite=True)
    assert (tmp_path / "bundle" / "mine.txt").exists()
    (tmp_path / "bundle" / "mine.txt").rename(tmp_path / "bundle" / "wsigen.yaml")
    inside = file.rename(tmp_path / "bundle" / file.name)
    with pytest.raises(BundleError, match="which --overwrite would delete"):
        import_zoomldm(inside, tmp_path / "bundle", overwrite=True)
    import_zoomldm(inside.rename(file), tmp_path / "bundle", overwrite=True)
    assert read_card(tmp_path / "bundle").grid is not None
