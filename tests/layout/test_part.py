"""The layout of a part of a slide is that part of the layout, wherever it begins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.geometry import Box
from wsigen.layout.polygons import PolygonLayout, Polygons
from wsigen.layout.raster import read_label_raster

SIDE = 300
TABLE = ClassTable((TissueClass("Glass", (255, 255, 255), True), TissueClass("Tumor", (200, 0, 0))))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    path = tmp_path_factory.mktemp("part") / "l.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 40)).astype(np.uint8)).save(path)
    ring = np.array([[20.0, 30], [280, 80], [190, 260], [20, 30]])
    return [
        read_label_raster(path, TABLE, None, (SIDE, SIDE), 0),
        PolygonLayout(SIDE, SIDE, 0, Polygons.of([[ring]], [1])),
        PolygonLayout(SIDE, SIDE, 0, Polygons.of([[ring / 4]], [1]), (4.0, 4.0)),
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(9, 100), st.integers(9, 100), st.sampled_from([1, 3, 9]))
def test_a_part_has_the_classes_of_the_whole(layouts, y, x, height, width, cell):
    """The centre of a cell of an odd side is that of a pixel, wherever the part begins."""
    box = Box(y, x, y + height, x + width)
    rows, columns = height // cell, width // cell
    for layout in layouts:
        px = layout.class_map(box, 1)
        cells = layout.part(box).class_map(Box(0, 0, rows, columns), cell)
        np.testing.assert_array_equal(cells, px[cell // 2 :: cell, cell // 2 :: cell][:rows, :columns])


def test_a_part_that_is_the_whole_is_the_same(layouts):
    for layout in layouts:
        same = layout.part(Box(0, 0, SIDE, SIDE))
        np.testing.assert_array_equal(same.class_map(Box(0, 0, 38, 38), 8), layout.class_map(Box(0, 0, 38, 38), 8))
