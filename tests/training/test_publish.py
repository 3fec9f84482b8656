"""What a training publishes can be read by whoever the umask says, and appears whole or not at all."""

import json
import os

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as torch_save

from wsigen.base.errors import BundleError, TrainingError
from wsigen.models.loading import load_network
from wsigen.models.weights import read_shapes
from wsigen.training.autoencoder import load_pretrained
from wsigen.training.publish import MOST_ALTERED, save_network, whole_folder


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_every_file_is_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "bundle") as beside:
            (beside / "unet").mkdir()
            save_file({"weights": np.zeros(3, np.float32)}, beside / "unet" / "model.safetensors")
            (beside / "wsigen.yaml").write_text("")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert len(files) == 2


def test_what_was_there_stays_if_writing_fails(tmp_path):
    with whole_folder(tmp_path / "bundle") as beside:
        (beside / "file").write_text("old")
    with pytest.raises(TrainingError, match="cannot be written"), whole_folder(tmp_path / "bundle") as beside:
        (beside / "file" / "in a file").write_text("new")
    assert (tmp_path / "bundle" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_configs_do_not_say_where_networks_lay(tmp_path):
    """diffusers and transformers write the folder that a network was loaded from into its config."""
    config = {"_class_name": "UNet2DModel", "_name_or_path": "/home/anna/secret/unet", "sample_size": 8}
    with whole_folder(tmp_path / "bundle") as beside:
        (beside / "unet").mkdir()
        (beside / "unet" / "config.json").write_text(json.dumps(config))
    text = (tmp_path / "bundle" / "unet" / "config.json").read_text()
    assert json.loads(text) == {"_class_name": "UNet2DModel", "sample_size": 8}


def test_files_that_are_no_configs_stay_as_they_are(tmp_path):
    """A bundle is copied with all that its owner put into it."""
    odd = {
        "my_config.json": b"// a comment",
        "list_config.json": b"[1]",
        "deep_config.json": b"[" * 100_000,
        "bytes_config.json": b"\xff",
    }
    with whole_folder(tmp_path / "bundle") as beside:
        for name, content in odd.items():
            (beside / name).write_bytes(content)
    assert {name: (tmp_path / "bundle" / name).read_bytes() for name in odd} == odd


@pytest.mark.parametrize(("stored", "kinds"), [("float32", {"F32"}), ("float16", {"F16"}), ("float8", {"F16", "F8_E4M3"})])
def test_networks_are_stored_as_asked_and_loaded_alike(tmp_path, stored, kinds):
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )
    with torch.no_grad():
        network.conv_out.weight[0, 0, 0, 0] = 500.0  # too much for a byte
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_network(network, tmp_path / "unet", stored)
    held = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    names = {torch.float32: "F32", torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3"}
    assert {names[value.dtype] for value in held.values()} == kinds
    assert {name for name, value in held.items() if value.dtype == torch.float8_e4m3fn and value.ndim < 2} == set()
    load_network(tmp_path / "unet", "cpu")
    after = load_pretrained(UNet2DModel, tmp_path / "unet").state_dict()
    bits = {"float32": 24, "float16": 11, "float8": 4}[stored]
    for name, value in before.items():
        assert after[name].dtype == torch.float32
        error = (after[name].reshape(value.shape) - value).abs()
        assert (error <= value.abs() * 2.0**-bits + 2.0**-10).all(), name
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())  # nothing happened to it


def test_layers_that_a_byte_alters_too_much_stay_as_they_are(tmp_path):
    """Weights of a very wide layer are so small that half of them would be rounded to the same few steps."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
    )
    with torch.no_grad():
        network.conv_out.weight.mul_(0.05)
    save_network(network, tmp_path / "unet", "float8")
    held = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert held["conv_out.weight"].dtype == torch.float16
    assert held["conv_in.weight"].dtype == torch.float8_e4m3fn
    for name, value in network.state_dict().items():
        assert (held[name].float() - value).norm() <= MOST_ALTERED * value.norm() + 1e-6, name


def test_floats_of_a_byte_with_scales_are_refused(tmp_path):
    weights = {"conv.weight": torch.zeros(2, 2).to(torch.float8_e4m3fn), "conv.scale_weight": torch.ones(1)}
    torch_save(weights, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match=r"conv\.scale_weight scales floats of a byte"):
        read_shapes(tmp_path)
    torch_save({**weights, "conv.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    assert set(read_shapes(tmp_path)) == set(weights)  # a name alone is no fault
