"""The same recipe is the same training, however its paths are spelled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
from streams import denoiser_settings

from wsigen.training import autoencoder_task, make_denoiser
from wsigen.training.recipes import AutoencoderRecipe, DenoiserRecipe


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An autoencoder's folder and a network's, as diffusers writes them."""
    folder = tmp_path / "model"
    tiny_bundles.tiny_kl().save_pretrained(folder / "vae")
    tiny_bundles.tiny_unet(4, None).save_pretrained(folder / "unet")
    return folder


def both(start: Path) -> list[Any]:
    denoiser = DenoiserRecipe.model_validate(denoiser_settings(start=start, text=start))
    return [
        make_denoiser.identity(denoiser, "data"),
        autoencoder_task.identity(AutoencoderRecipe(dataset=Path("c"), start=start), "data"),
    ]


def test_a_start_is_what_it_holds(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = both(model)
    monkeypatch.chdir(tmp_path)
    assert both(Path("model")) == known
    assert both(tmp_path / "model" / "vae" / ".." / ".." / "model") == known
    shutil.copytree(model, tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("words decide no weights")
    assert both(tmp_path / "moved") == known


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_other_weights_are_another_start(model: Path, part: str) -> None:
    known = both(model)
    file = model / part / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert all(a != b for a, b in zip(both(model), known, strict=True))
