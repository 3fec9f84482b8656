"""compress, decompress, compress: the slide that comes out is compared with the grid that went in."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import settings_of
from tiny_bundles import make_grid_token_bundle

from wsigen.base.errors import GridError, OutputError
from wsigen.evaluation.decompress import decompress, decompression_config
from wsigen.grids.compress import compress
from wsigen.grids.grid import GridFile
from wsigen.grids.wsz import new_grid
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


def test_a_slide_comes_back_from_its_grid(tmp_path):
    """The default model and tissue that it has not seen: most of the way from chance to what the autoencoder can."""
    original = tmp_path / "c3.png"
    Image.open(Path(__file__).parents[1] / "data/her2st-c3-512px.jpg").save(original)
    compress(original, tmp_path / "c3.wsz", mpp=0.7)
    _, found = decompress(tmp_path / "c3.wsz", tmp_path / "a.ome.tiff", original=original, keep_run=False)
    shares = [(level.cosine - level.floor) / (level.ceiling - level.floor) for level in found.levels]
    assert found.levels[0].part_um == pytest.approx(5.6)
    assert min(shares) > 0.5
    assert all(abs(level.floor) < 0.1 for level in found.levels[:2])


def test_what_cannot_be_compared_is_refused_before_a_slide_is_drawn(grid_bundle, compressed, tmp_path, monkeypatch):
    other = GridFile(encoder="embedded", encoder_sha256="0" * 64, cell_um=32.0, width_um=320.0, height_um=320.0)
    with new_grid(tmp_path / "other.wsz", other, (5, 10, 10)) as writer:
        writer.write(0, np.ones((5, 10, 10)), np.ones((10, 10), bool))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr("wsigen.evaluation.decompress.generate", pytest.fail)
    with pytest.raises(GridError, match=r"is of encoder 'embedded' \(sha256 000000000000\), and here is 'embedded'"):
        decompress(tmp_path / "other.wsz", tmp_path / "a.ome.tiff", model=str(grid_bundle))
    (tmp_path / "r").write_text("a file")
    with pytest.raises(OutputError, match="no folder of a report"):
        decompress(compressed / "p.wsz", tmp_path / "a.ome.tiff", report=tmp_path / "r", model=str(grid_bundle))


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
