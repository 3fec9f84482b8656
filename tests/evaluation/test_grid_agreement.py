"""The agreement of a decompressed slide with its grid: perfect of the original itself, chance of another place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsigen.evaluation.grid_agreement import compare_grids, measure_decompression
from wsigen.grids.compress import compress
from wsigen.grids.grid import EncoderId, Grid

MPP = 0.7


def _blobs(seed: int, side: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 255, (32, 32, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def _saved(pixels: np.ndarray, file: Path) -> Path:
    Image.fromarray(pixels).save(file, dpi=(25_400 / MPP, 25_400 / MPP))
    return file


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return _saved(_blobs(1), tmp_path / "original.tif")


@pytest.fixture
def grid_file(original: Path, tmp_path: Path) -> Path:
    compress(original, tmp_path / "x.wsz")
    return tmp_path / "x.wsz"


def test_the_original_agrees_with_its_grid_at_every_part(grid_file: Path, original: Path):
    found = measure_decompression(grid_file, original)
    assert [level.part_um for level in found.levels] == pytest.approx([5.6, 11.2, 22.4, 44.8])
    assert [level.parts for level in found.levels] == [1024, 256, 64, 16]
    for level in found.levels:
        assert level.cosine > 0.999
        assert abs(level.floor) < 0.4


def test_a_slide_of_other_tissue_agrees_by_chance(grid_file: Path, tmp_path: Path):
    other = _saved(_blobs(2), tmp_path / "other.tif")
    finest = measure_decompression(grid_file, other).levels[0]
    assert abs(finest.cosine) < 0.15


def test_a_region_is_compared_with_its_own_place(grid_file: Path, original: Path, tmp_path: Path):
    region = _saved(np.asarray(Image.open(original))[64:192, 96:224], tmp_path / "region.tif")
    right = measure_decompression(grid_file, region, place=(96 * MPP, 64 * MPP, 128 * MPP, 128 * MPP))
    wrong = measure_decompression(grid_file, region, place=(0.0, 0.0, 128 * MPP, 128 * MPP))
    assert right.levels[0].cosine > 0.999
    assert wrong.levels[0].cosine < 0.5


def test_the_ceiling_is_what_the_autoencoder_leaves(grid_file: Path, original: Path, tmp_path: Path):
    def forgets(pixels: np.ndarray) -> np.ndarray:
        return np.broadcast_to(pixels[..., :1], pixels.shape)  # one colour of three

    perfect = measure_decompression(grid_file, original, original=original, round_trip=lambda pixels: pixels)
    poor = measure_decompression(
        grid_file, original, original=original, round_trip=forgets, picture=tmp_path / "p.png"
    )  # fmt: skip
    assert perfect.levels[0].ceiling == pytest.approx(1.0, abs=1e-4)
    assert poor.levels[0].ceiling < 0.9 < poor.levels[0].cosine
    assert perfect.raw_bytes == 256 * 256 * 3
    assert perfect.slide_bytes == original.stat().st_size
    assert "at best 1.00" in perfect.lines()[1]
    assert Image.open(tmp_path / "p.png").width > 3 * 256


def test_unknown_cells_are_not_compared():
    values = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    known = np.ones((8, 8), dtype=bool)
    known[:4] = False
    whole, half = (Grid(values, k, 1.0, EncoderId("e")) for k in (np.ones((8, 8), dtype=bool), known))
    assert compare_grids(whole, half, (0.0, 0.0, 8.0, 8.0))[0].parts == 32
