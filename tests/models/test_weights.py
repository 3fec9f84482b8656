"""Configs and weights: neither a size nor a type is believed before it is compared with what the files hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from wsigen.base.errors import BundleError
from wsigen.models.bundle import check_bundle
from wsigen.models.loading import check_network, load_text, read_schedule
from wsigen.models.model import load_model
from wsigen.models.weights import read_shapes

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(class_map_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(class_map_bundle, tmp_path / "bundle"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("part", ["vae", "unet"])
@pytest.mark.parametrize(
    "values",
    [
        {"block_out_channels": 5},
        {"block_out_channels": []},
        {"block_out_channels": [8] * 13},
        {"block_out_channels": [10**8, 8, 8, 8]},
        {"block_out_channels": [8, 8, 8, True]},
        {"layers_per_block": 100_000},
        {"layers_per_block": "2"},
        {"in_channels": 3.0},
        {"out_channels": 10**300},
        {"_class_name": ["AutoencoderKL"]},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
def test_what_is_implausible_is_refused_by_name_and_file(copied: Path, part: str, values: dict[str, Any]) -> None:
    change(copied / part / "config.json", **values)
    with pytest.raises(BundleError, match=rf"{part}/config\.json: setting '{next(iter(values))}") as refusal:
        check_bundle(copied)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("values", [{"num_train_timesteps": 10**10}, {"beta_end": "x"}, {"trained_betas": [0.1, None]}])
def test_an_implausible_schedule_is_refused(copied: Path, values: dict[str, Any]) -> None:
    change(copied / "scheduler" / "scheduler_config.json", **values)
    with pytest.raises(BundleError, match=rf"scheduler_config\.json: setting '{next(iter(values))}"):
        check_bundle(copied)


def test_a_schedule_of_an_unknown_kind_is_one_line(copied: Path) -> None:
    change(copied / "scheduler" / "scheduler_config.json", beta_schedule="x")
    with pytest.raises(BundleError, match="scheduler: cannot be loaded: "):
        read_schedule(copied)


@pytest.mark.parametrize(
    "values",
    [
        {"block_out_channels": [65_536] * 4},
        {"layers_per_block": 64},
        {"layers_per_block": 2},
        {"norm_num_groups": 0},
        {"down_block_types": ["OtherBlock"] * 4},
        {"down_block_types": 7},
    ],
)
def test_a_config_that_the_weights_do_not_fit_builds_nothing(copied: Path, values: dict[str, Any]) -> None:
    change(copied / "vae" / "config.json", **values)
    begin = monotonic()
    with pytest.raises(BundleError, match=r"/vae: .*not of the same model"):
        check_network(copied / "vae")
    assert monotonic() - begin < 5


def test_a_text_encoder_is_not_larger_than_its_weights(text_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_bundle, tmp_path / "bundle"))
    change(folder / "text_encoder" / "config.json", vocab_size=10_000_000, num_hidden_layers=256)
    with pytest.raises(BundleError, match="a larger network than the weights hold"):
        load_text(folder, "cpu")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_weights_of_integers_are_refused_by_name(copied: Path, dtype: Any) -> None:
    shapes = read_shapes(copied / "unet")
    save_file({name: np.zeros(shape, dtype) for name, shape in shapes.items()}, copied / "unet" / WEIGHTS)
    with pytest.raises(BundleError, match=r"model\.safetensors: \S+ is of type \S+, not float"):
        load_model(copied)


def test_other_shapes_are_named(copied: Path) -> None:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in read_shapes(copied / "unet").items()}
    save_file({**arrays, "conv_in.bias": np.zeros(5, np.float32)}, copied / "unet" / WEIGHTS)
    with pytest.raises(BundleError, match=r"by the config, conv_in\.bias is \[\d+\]; the weights hold \[5\]"):
        load_model(copied)
