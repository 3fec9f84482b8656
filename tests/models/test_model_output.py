"""Networks that give no numbers or no picture are found where they are called, and never become a slide."""

import numpy as np
import pytest
from tiny_bundles import make_class_map_bundle

import wsigen
from wsigen.base.errors import ModelOutputError
from wsigen.models.conditioning import Condition
from wsigen.models.model import load_model


@pytest.fixture
def model(tmp_path):
    return load_model(make_class_map_bundle(tmp_path / "bundle"))


def spoil(module, value):
    """Let the last layer of a network give one value everywhere."""
    for parameter in module.parameters():
        parameter.data.zero_()
    module.bias.data.fill_(value)


def latents(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_denoiser_without_numbers(model):
    spoil(model.unet.conv_out, float("nan"))
    with pytest.raises(ModelOutputError, match="denoiser gives 100% values that are not finite"):
        model.predict(latents(1, 4, 16, 16), 10, [Condition(np.zeros((16, 16), np.uint8))], 0)


def test_an_encoder_without_numbers(model):
    spoil(model.autoencoder.vae.encoder.conv_out, float("inf"))
    with pytest.raises(ModelOutputError, match="encoder"):
        model.autoencoder.encode(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -50.0, 0.1])
def test_a_decoder_without_picture(model, value):
    spoil(model.autoencoder.vae.decoder.conv_out, value)
    with pytest.raises(ModelOutputError, match="decoder"):
        model.autoencoder.decode(latents(4, 16, 16))


def test_a_decoder_may_draw_white_glass(model):
    spoil(model.autoencoder.vae.decoder.conv_out, 50.0)
    assert (model.autoencoder.decode(latents(4, 16, 16)) == 255).all()


def test_the_run_stops_and_names_chunk_and_cause(tmp_path):
    from safetensors.numpy import load_file, save_file

    bundle = make_class_map_bundle(tmp_path / "bundle")
    weights = bundle / "vae" / "diffusion_pytorch_model.safetensors"
    content = load_file(weights)
    content["decoder.conv_out.bias"][:] = np.nan
    save_file(content, weights)
    with pytest.raises(ModelOutputError, match=r"^(calibrate|decode).*\d.*decoder gives .* not finite"):
        wsigen.generate(tmp_path / "s.ome.tiff", class_name="Tumor", size="512x512", model=str(bundle), steps=1)
    assert not (tmp_path / "s.ome.tiff").exists()
