"""``VQModel``: latents are quantised when they are decoded, and windows agree with the whole array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
import torch
from diffusers import VQModel

from wsigen.base.geometry import Box
from wsigen.models.autoencoder import Autoencoder
from wsigen.models.card import read_card
from wsigen.models.halo import sides
from wsigen.models.layers import NearestCode
from wsigen.models.model import load_model


@pytest.fixture(scope="module", params=[True, False], ids=["attention", "local"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundles.make_vq_bundle(tmp_path_factory.mktemp("vq") / "bundle", attention=request.param)


@pytest.fixture
def model(bundle: Path) -> Autoencoder:
    return load_model(bundle).autoencoder


def latents(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, height, width)).astype(np.float32)


def reference(bundle: Path, z: np.ndarray) -> np.ndarray:
    """diffusers' own decoding of all of it at once."""
    with torch.inference_mode():
        raw = torch.from_numpy(z * np.float32(0.9) + np.float32(0.1))[None]
        image = VQModel.from_pretrained(bundle / "vae").eval().decode(raw).sample[0].permute(1, 2, 0).numpy()
    return np.asarray(np.clip((image + 1.0) * 127.5, 0, 255))


def test_decoding_quantises_as_diffusers_does(model: Autoencoder, bundle: Path) -> None:
    z = latents(12, 16)
    assert np.abs(model.decode(z) - reference(bundle, z)).max() < 0.05
    assert np.array_equal(model.decode(z), model.decode(z + np.float32(1e-6)))  # within the cells of the codes


def test_encoding_gives_what_is_quantised_later(model: Autoencoder, bundle: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    x = torch.from_numpy(rgb.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]
    vae = VQModel.from_pretrained(bundle / "vae").eval()
    with torch.inference_mode():
        raw = vae.quant_conv(vae.encoder(x))[0].numpy()
    z = model.encode(rgb)
    assert z.shape == (3, 8, 12)
    assert np.allclose(z, (raw - 0.1) / 0.9, atol=1e-4)


def test_any_window_equals_the_whole_array(model: Autoencoder, bundle: Path) -> None:
    z, canvas = latents(40, 56), Box(0, 0, 40, 56)
    model.freeze_norm(model.norm_statistics([z]))
    whole = reference(bundle, z)
    for box in (Box(0, 0, 8, 9), Box(15, 20, 31, 44), Box(33, 50, 40, 56)):
        around = box.dilate(model.halo).intersect(canvas)
        if model.splits:
            features = model.features(lambda b: z[:, b.y0 : b.y1, b.x0 : b.x1], canvas, [around])
            found = model.decode_features(features, around, sides(box, around))
        else:
            found = model.decode(z[(slice(None), *around.slices)], sides(box, around))
        assert np.abs(found - whole[box.scale(4).slices]).max() < 0.05


def test_the_code_of_a_pixel_depends_on_that_pixel_alone() -> None:
    codes = torch.nn.Parameter(torch.randn(37, 3))
    x = torch.randn(2, 3, 11, 13)
    whole = NearestCode(codes)(x)[0]
    assert torch.equal(NearestCode(codes)(x[..., 4:5, 6:7])[0], whole[..., 4:5, 6:7])
    nearest = ((x[0, :, 0, 0] - codes) ** 2).sum(dim=1).argmin()
    assert torch.equal(whole[0, :, 0, 0], codes[nearest])


def test_a_folder_without_a_card_has_latents_of_the_codes(bundle: Path, tmp_path: Path) -> None:
    for part in ("vae", "unet", "scheduler"):
        (tmp_path / part).symlink_to(bundle / part)
    latent = read_card(tmp_path).latent
    assert (latent.channels, latent.factor, latent.mean, latent.std) == (3, 4, (0.0,) * 3, (1.0,) * 3)
