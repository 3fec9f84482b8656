"""The YAML files of the pipelines, and the stage that only some have: a model of layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dataset.dataset_making import CLASSES, annotated, slide

import wsigen
from pipelines.steps import open_data, read_pipeline, train_layouts
from wsigen.base.errors import ConfigError, TrainingError
from wsigen.models.mask_bundle import open_mask

CONFIGS = Path(wsigen.__file__).parents[1] / "configs"
ZOOM = ["zoomldm-small", "zoomldm-paper"]
LOOP = {"steps": 2, "batch": 2, "sample_every": 0}
PLAN: dict[str, Any] = {
    "dataset": {
        "classes": CLASSES,
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": 128,
        "overlap_px": 32,
        "sources": [
            {"kind": "annotated", "images": "slides", "mpp": 0.5, "background": "Glass"},
            {"kind": "unlabelled", "images": "plain", "mpp": 0.5},
        ],
        "subtypes": {"csv": "subtypes.csv"},
    },
    "autoencoder": {"use": "nowhere"},
    "denoiser": {"bundle": {"name": "tiny", "title": "A tiny model", "licence": "CC0-1.0", "not_for": "anything but tests"}},
    "mask": {
        "side": 16,
        "cell_um": 24.0,
        "least_slides": 1,
        "network": {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8},
        "loop": LOOP,
    },
    "slides": {"subtypes": ["solid"], "settings": {}},
}


@pytest.mark.parametrize(
    "name", ["pathup-small", "pathup-paper", "diffinfinite-small", "diffinfinite-paper", *ZOOM, "default-model"]
)
def test_the_files_in_configs_are_plans(name: str) -> None:
    plan = read_pipeline(CONFIGS / f"{name}.yaml")
    assert (plan.mask is not None) == name.startswith("diffinfinite")
    assert (plan.tokens is not None) == (name in ZOOM)


def test_a_model_of_layouts_is_trained_once_and_known_by_its_settings(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    annotated(tmp_path / "data" / "slides")
    slide(tmp_path / "data" / "plain" / "u1.png", seed=5)  # nobody named its subtype, and nobody has to
    (tmp_path / "data" / "subtypes.csv").write_text("image,subtype\ns1.png,solid\n")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    plan = read_pipeline(tmp_path / "plan.yaml")
    dataset = open_data(plan, tmp_path / "data", tmp_path)
    folder = train_layouts(plan, dataset, tmp_path, resume=False)
    assert folder is not None
    assert open_mask(folder / "mask", dataset.table).subtypes == ("solid",)
    before = (folder / "losses.csv").stat().st_mtime_ns
    assert train_layouts(plan, dataset, tmp_path, resume=False) == folder
    assert (folder / "losses.csv").stat().st_mtime_ns == before
    other = plan.model_copy(update={"mask": PLAN["mask"] | {"p_unc": 0.1}})
    with pytest.raises(TrainingError, match="p_unc"):
        train_layouts(other, dataset, tmp_path, resume=False)
    assert train_layouts(plan.model_copy(update={"mask": None}), dataset, tmp_path, resume=False) is None


def test_subtypes_without_a_model_that_draws_them_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({k: v for k, v in PLAN.items() if k != "mask"}))
    with pytest.raises(ConfigError, match=r"slides\.subtypes are drawn by a mask model; add 'mask:'"):
        read_pipeline(tmp_path / "plan.yaml")
