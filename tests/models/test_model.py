"""Loaded bundles as a whole: files of a variant, the schedule, where a class map acts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from wsigen.models.conditioning import Condition
from wsigen.models.model import Model, load_model

SHAPE = (4, 16, 16)


def latents() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)


def test_a_variant_may_hold_the_text_encoder_too(folders: dict[str, Path], tmp_path: Path) -> None:
    """Stable Diffusion is published with fp16 files of every part."""
    folder = shutil.copytree(folders["text"], tmp_path / "half")
    for kind, part in ((UNet2DConditionModel, "unet"), (CLIPTextModel, "text_encoder")):
        network = kind.from_pretrained(folders["text"] / part, torch_dtype=torch.float16)
        next((folder / part).glob("*.safetensors")).unlink()
        network.save_pretrained(folder / part, variant="fp16")
    found = load_model(folder).predict(latents(), 500, [Condition(label=1)], 0)
    exact = load_model(folders["text"]).predict(latents(), 500, [Condition(label=1)], 0)
    assert 0 < np.abs(found - exact).max() < 0.05


def test_a_class_map_acts_where_it_differs(models: dict[str, Model]) -> None:
    """The class channels lie over the latents pixel by pixel, neither transposed nor flipped."""
    model, everywhere = models["class-map"], np.ones(SHAPE[1:], dtype=np.uint8)
    corner = everywhere.copy()
    corner[:4, -4:] = 2
    a, b = (model.predict(latents(), 9, [Condition(class_map=m)], 0) for m in (everywhere, corner))
    change = np.abs(a - b).sum(axis=(0, 1))
    others = (change[-4:, :4], change[:4, :4], change[-4:, -4:])
    assert change[:4, -4:].mean() > 5 * max(part.mean() for part in others)


def test_class_level_and_timestep_each_change_the_prediction(models: dict[str, Model]) -> None:
    for kind in ("class-tokens", "text"):
        calls = [(1, 0, 500), (2, 0, 500), (None, 0, 500), (1, 1, 500), (1, 0, 100)]
        found = [models[kind].predict(latents(), t, [Condition(label=c)], level) for c, level, t in calls]
        assert all(not np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])
