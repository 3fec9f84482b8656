"""A small class map spread over a slide."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.geometry import Box
from wsigen.layout.cell_map import CellMapLayout

RNG = np.random.default_rng(0)
BLOCKS = np.repeat(np.repeat(RNG.choice([0, 1, 2, 255], (5, 6)), 4, 0), 4, 1).astype(np.uint8)
LAYOUT = CellMapLayout(1000, 1500, BLOCKS)
WHOLE = LAYOUT.class_map(Box(0, 0, 125, 188), 8)


@given(st.integers(-5, 124), st.integers(-5, 187), st.integers(1, 40), st.integers(1, 40))
def test_a_box_drawn_alone_equals_the_whole(y, x, h, w):
    rows = np.clip(np.arange(y, y + h), 0, 124)
    columns = np.clip(np.arange(x, x + w), 0, 187)
    assert np.array_equal(LAYOUT.class_map(Box(y, x, y + h, x + w), 8), WHOLE[np.ix_(rows, columns)])


def test_strips_do_not_show(monkeypatch):
    monkeypatch.setattr("wsigen.layout.cell_map.CellMapLayout.strip_cells", 700)
    assert np.array_equal(LAYOUT.class_map(Box(0, 0, 125, 188), 8), WHOLE)


def test_the_middle_of_a_region_keeps_its_class_and_areas_stay():
    middle = WHOLE[12::25][:, np.clip(np.round((np.arange(6) + 0.5) * 31.25).astype(int), 0, 187)]
    assert np.array_equal(middle, BLOCKS[2::4, 2::4])
    for value in (0, 1, 2, 255):
        assert abs(np.mean(value == WHOLE) - np.mean(value == BLOCKS)) < 0.04


def test_no_class_grows_by_its_index():
    """A half plane keeps its half, whichever of the two classes is the lower one."""
    for left, right in ((0, 5), (5, 0)):
        cells = np.full((8, 8), left, np.uint8)
        cells[:, 4:] = right
        drawn = CellMapLayout(800, 800, cells).class_map(Box(0, 0, 100, 100), 8)
        assert np.mean(drawn == left) == 0.5


def test_corners_are_rounded():
    cells = np.zeros((12, 12), np.uint8)
    cells[3:9, 3:9] = 1
    drawn = CellMapLayout(960, 960, cells).class_map(Box(0, 0, 120, 120), 8)
    assert drawn[30, 30] == 0
    assert drawn[31:33, 60].all()
    assert 0.9 * 36 < drawn.sum() / 100 < 36
