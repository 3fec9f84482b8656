"""The window of a grid is the area mean of its cells, anywhere, at any size of parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.base.geometry import Box
from wsigen.grids.grid import EncoderId, Grid, standardised_cells
from wsigen.grids.mean_colour import mean_colours
from wsigen.grids.picture import grid_picture

ROWS, COLS, CELL = 7, 9, 2.0


def grid(seed=0, unknown=0.0):
    rng = np.random.default_rng(seed)
    known = rng.random((ROWS, COLS)) >= unknown
    values = np.where(known, rng.normal(size=(3, ROWS, COLS)), np.nan).astype(np.float32)
    return Grid(values, known, CELL, EncoderId("test"))


def slow_mean(g, y0, x0, part, d):
    """Integrate cell by cell; cells beyond the edge repeat the last one."""
    total = weight = 0.0
    for i in range(int(np.floor(y0 / CELL)), int(np.ceil((y0 + part) / CELL)) + 1):
        for j in range(int(np.floor(x0 / CELL)), int(np.ceil((x0 + part) / CELL)) + 1):
            high = max(0.0, min(y0 + part, (i + 1) * CELL) - max(y0, i * CELL))
            wide = max(0.0, min(x0 + part, (j + 1) * CELL) - max(x0, j * CELL))
            ci, cj = min(max(i, 0), ROWS - 1), min(max(j, 0), COLS - 1)
            if g.known[ci, cj]:
                total, weight = total + high * wide * float(g.values[d, ci, cj]), weight + high * wide
    return (total / weight if weight else 0.0), weight / part**2


@settings(deadline=None, max_examples=60)
@given(
    part=st.floats(0.3, 9.0),
    y=st.integers(-3, 8),
    x=st.integers(-3, 8),
    offset=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    unknown=st.sampled_from([0.0, 0.4]),
)
def test_a_window_is_the_area_mean_of_known_cells(part, y, x, offset, unknown):
    g = grid(1, unknown)
    values, known = g.window(Box(y, x, y + 2, x + 3), part, offset)
    for i in range(2):
        for j in range(3):
            mean, share = slow_mean(g, (y + i) * part + offset[0], (x + j) * part + offset[1], part, 1)
            if abs(share - 0.5) < 1e-3:
                continue
            assert known[i, j] == (share > 0.5)
            assert values[1, i, j] == pytest.approx(mean if share > 0.5 else 0.0, abs=2e-4)


def test_a_part_has_the_same_bits_in_any_window():
    g = grid(2)
    whole, _ = g.window(Box(0, 0, 20, 24), 0.7)
    part, _ = g.window(Box(5, 3, 11, 20), 0.7)
    assert np.array_equal(whole[:, 5:11, 3:20], part)


def test_parts_as_large_as_cells_are_the_cells():
    g = grid(3)
    values, known = g.window(Box(0, 0, ROWS, COLS), CELL)
    assert np.array_equal(values, g.values)
    assert known.all()


def test_mean_colours_are_means_in_one_scale():
    picture = np.zeros((1, 16, 24, 3), np.uint8)
    picture[0, :8, 8:16] = (255, 0, 51)
    cells = mean_colours(picture, 8)
    assert cells.shape == (1, 3, 2, 3)
    assert cells[0, :, 0, 1] == pytest.approx([1.0, -1.0, -0.6])
    assert (cells[0, :, 1, 2] == -1.0).all()


def test_a_picture_shows_mean_colours_and_the_components_of_other_cells():
    colours = np.zeros((3, 2, 3), np.float32)
    colours[:, 0, 1] = (1.0, -1.0, 0.0)
    known = np.ones((2, 3), bool)
    known[1, 2] = False
    picture = grid_picture(Grid(colours, known, 4.0, EncoderId("mean-colour")))
    side = picture.shape[0] // 2
    assert picture[0, side].tolist() == [255, 0, 128]
    assert picture[-1, -1].tolist() == [255, 255, 255]
    rng = np.random.default_rng(0)
    one = np.linspace(-1, 1, ROWS * COLS).reshape(ROWS, COLS)
    embeddings = rng.normal(size=(16, 1, 1)) * one + 1e-3 * rng.normal(size=(16, ROWS, COLS))
    shown = grid_picture(Grid(embeddings.astype(np.float16), np.ones((ROWS, COLS), bool), 4.0, EncoderId("other")))
    side = shown.shape[0] // ROWS
    first = shown[::side, ::side, 0][:ROWS, :COLS].astype(float).ravel()
    assert abs(np.corrcoef(first, one.ravel())[0, 1]) > 0.98


def test_a_picture_is_the_same_however_many_cells_are_read_at_once(monkeypatch):
    monkeypatch.setattr("wsigen.grids.picture.MOST_PX", 5)
    whole = grid_picture(grid(6, 0.3))
    monkeypatch.setattr("wsigen.grids.picture.AT_ONCE", 1)
    assert np.array_equal(grid_picture(grid(6, 0.3)), whole)


def test_cells_in_memory_are_the_same_cells():
    g = grid(5, 0.3)
    held = g.held(10**6)
    assert held is not g
    assert g.held(10) is g
    for mine, its in zip(held.window(Box(0, 0, 4, 5), 3.1), g.window(Box(0, 0, 4, 5), 3.1), strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.parametrize(("cells", "parts"), [(1, 1), (2, 2), (8, 8), (16, 8), (64, 8)])
def test_aligned_windows_are_those_of_the_released_loader(cells, parts):
    """Means to at most 8 x 8 first, then each position by its own mean and unbiased deviation; ZoomLDM's loader in float32."""
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(2.0, 3.0, (32, 64, 64)).astype(np.float32)
    start = 64 - cells
    window = torch.from_numpy(values[:, start:, start:])
    pooled = torch.nn.functional.adaptive_avg_pool2d(window, parts) if cells > 8 else window
    expected = (pooled - pooled.mean(0)) / (pooled.std(0) + 1e-8)
    whole = Grid(values, np.ones((64, 64), bool), 128.0, EncoderId("test"))
    means, known = whole.window(Box(0, 0, parts, parts), cells * 128.0 / parts, (start * 128.0, start * 128.0))
    assert np.abs(standardised_cells(means, known) - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (EncoderId("uni_v1"), EncoderId("timm:hf-hub:MahmoodLab/uni"), True),
        (EncoderId("phikon"), EncoderId("transformers:owkin/phikon"), True),
        (EncoderId("uni_v1"), EncoderId("timm:hf-hub:MahmoodLab/UNI2-h"), False),
        (EncoderId("uni_v1", "a"), EncoderId("uni_v1", "b"), False),
        (EncoderId("uni_v1", "a"), EncoderId("anything", "a"), True),
    ],
)
def test_an_encoder_is_known_by_its_weights_or_by_any_of_its_names(one: EncoderId, other: EncoderId, same: bool) -> None:
    assert one.agrees(other) is same
    assert other.agrees(one) is same
