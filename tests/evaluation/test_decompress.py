"""compress, decompress, compress: the slide that comes out is compared with the grid that went in."""

import json

import numpy as np
import pytest
from PIL import Image
from runs import settings_of
from tiny_bundles import make_grid_token_bundle

from wsigen.base.errors import GridError
from wsigen.evaluation.decompress import decompress, decompression_config
from wsigen.grids.compress import compress
from wsigen.models.card import read_card
from wsigen.run.tasks.context import RunContext


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """A picture of 640x640 px at the tiny bundles' 0.5 um/px, and its grid."""
    folder = tmp_path_factory.mktemp("compressed")
    cells = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(cells).resize((640, 640), Image.Resampling.BICUBIC).save(folder / "p.png")
    compress(folder / "p.png", folder / "p.wsz", cell_um=4.0, mpp=0.5)
    return folder


def test_a_region_is_decompressed_and_compared(grid_bundle, compressed, tmp_path):
    settings = settings_of(grid_bundle, tmp_path, steps=2) | {"size": None, "layout": None, "region": "64,64,512,512"}
    result, found = decompress(
        compressed / "p.wsz", tmp_path / "a.ome.tiff", original=compressed / "p.png", report=tmp_path / "r", **settings
    )
    assert result.open().dimensions == (512, 512)
    assert [level.parts for level in found.levels[:2]] == [4096, 1024]
    assert found.raw_bytes == 640 * 640 * 3
    assert all(-1 <= level.cosine <= 1 and level.ceiling is not None for level in found.levels)
    assert json.loads((tmp_path / "r" / "decompression.json").read_text())["levels"][0]["parts"] == 4096
    assert Image.open(tmp_path / "r" / "cells.png").width > 512
    passes = [p.plan for p in RunContext(tmp_path / "a.run").passes]
    assert {p.grid_from for p in passes} == {"given"}


def test_magnifications_are_drawn_from_half_of_the_noise_and_keep_to_each_other(grid_bundle, compressed, tmp_path):
    config = decompression_config(compressed / "p.wsz", model=str(grid_bundle))
    assert config.strength == 0.5
    assert config.levels == 1  # told a cell for each latent px
    assert config.consistency == "picture"
    told_tokens = make_grid_token_bundle(tmp_path / "tokens")
    assert decompression_config(compressed / "p.wsz", model=str(told_tokens)).levels == len(read_card(told_tokens).levels) > 1
    assert decompression_config(compressed / "p.wsz", model=str(grid_bundle), levels=1, strength=0.3).strength == 0.3
    assert decompression_config(compressed / "p.wsz", model=str(grid_bundle), consistency="none").consistency == "none"


def test_an_original_of_other_proportions_is_refused(grid_bundle, compressed, tmp_path):
    Image.new("RGB", (640, 320)).save(tmp_path / "flat.png")
    with pytest.raises(GridError, match="other proportions"):
        decompress(compressed / "p.wsz", tmp_path / "a.ome.tiff", original=tmp_path / "flat.png", model=str(grid_bundle))
