"""ZoomLDM's pipeline on three tiny slides, from data to tiles and a decompressed slide; bags of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from dataset.dataset_making import slide

from pipelines import zoomldm
from pipelines.bags import BagMaker
from pipelines.steps import open_data, read_pipeline
from wsigen.base.errors import ConfigError
from wsigen.grids.compress import compress
from wsigen.grids.opening import open_grid
from wsigen.models.card import read_card
from wsigen.models.extractors.embedded import open_embedded

LOOP = {"steps": 2, "batch": 2, "learning_rate": 1e-3, "sample_every": 0}
PLAN: dict[str, Any] = {
    "dataset": {
        "classes": [{"name": "Tissue", "color": [200, 120, 160]}],
        "levels": [{"name": "20x", "mpp": 0.5}, {"name": "10x", "mpp": 1.0}, {"name": "5x", "mpp": 2.0}],
        "patch_px": 128,
        "overlap_px": 32,
        "sources": [{"kind": "unlabelled", "images": "slides", "mpp": 0.5}],
        "held_out": ["h1"],
    },
    "autoencoder": {
        "crop_px": 32,
        "network": {"channels": [8, 8, 8], "latent_channels": 3, "norm_groups": 4},
        "loop": LOOP,
    },
    "denoiser": {
        "conditioning": {"kind": "none"},
        "network": {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8},
        "grid": {
            "encoder": "embedded",
            "cell_um": 64.0,
            "summariser": {"side": 4, "width": 16, "layers": 1, "heads": 2, "mlp": 16},
        },
        "level_shares": [1, 1, 2],
        "loop": LOOP,
        "bundle": {"name": "tiny", "title": "A tiny model", "licence": "CC0-1.0", "not_for": "anything but tests", "steps": 1},
    },
    "tokens": {"network": {"hidden": 64, "depth": 1}, "loop": LOOP},
    "slides": {"settings": {"region": [64, 64, 512, 512]}},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("zoomldm")
    for seed, name in enumerate(("a", "h1")):
        slide(root / "data" / "slides" / f"{name}.png", seed=seed)
    (root / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    plan = read_pipeline(root / "plan.yaml")
    zoomldm.run(plan, open_data(plan, root / "data", root), root, resume=False)
    return root


def test_every_step_leaves_its_result(out: Path) -> None:
    card = read_card(out / "tokens" / "bundle")
    assert card.grid is not None
    assert (card.grid.cell_um, card.grid.parts) == (64.0, (1, 2, 4))
    assert len(list((out / "denoiser" / "grids").glob("*.wsz"))) == 1  # of the training slide, once
    assert not (out / "tokens" / "grids").exists()
    assert len(list((out / "tiles").glob("5x-*.png"))) == zoomldm.TILES
    assert (out / "decompressed" / "h1.ome.tiff").is_file()
    found = json.loads((out / "decompressed" / "h1" / "decompression.json").read_text())
    assert found["levels"][0]["ceiling"] is not None


def test_it_says_how_often_each_patch_is_seen(out: Path) -> None:
    rows = [line.split("|") for line in (out / "seen.md").read_text().splitlines()[2:]]
    draws = [int(row[3].replace(",", "")) * float(row[4].split()[0]) for row in rows]
    assert draws == pytest.approx([1.0, 1.0, 2.0], rel=0.01)  # of 2 steps of 2 crops


def test_bags_of_means_and_of_tokens_are_of_the_same_windows(out: Path) -> None:
    maker = BagMaker(out / "denoiser" / "bundle", open_embedded("default", "cpu"))
    file = maker.grid_of(out / "decompressed" / "h1.wsz", out)
    bags, grid = maker.bags(file), open_grid(file)
    assert len(bags["grid"]) == int(np.asarray(grid.known[:]).sum())
    windows = 2 * 2  # of 256 um, of a slide of 384 x 320 um
    assert bags["tokens"].shape == (windows * 17, 16)
    assert 0 < len(bags["means"]) <= windows * 4 * 4
    assert bags["means"].shape[1] == bags["grid"].shape[1] == grid.values.shape[0]


def test_a_grid_of_another_encoder_is_refused(out: Path) -> None:
    compress(out / "data" / "slides" / "h1.png", out / "colours.wsz", cell_um=64.0, mpp=0.5)
    maker = BagMaker(out / "denoiser" / "bundle", open_embedded("default", "cpu"))
    with pytest.raises(ConfigError, match="is of encoder 'mean-colour'; the model follows 'embedded'"):
        maker.bags(out / "colours.wsz")


def test_a_model_without_tokens_has_no_bags(default_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="is told no tokens"):
        BagMaker(default_bundle)


@pytest.fixture
def default_bundle() -> Path:
    from wsigen.models.bundle import find_bundle

    return find_bundle("default")
