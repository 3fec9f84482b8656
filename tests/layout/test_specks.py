import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.geometry import Box
from wsigen.layout.sampled import sample_layout
from wsigen.layout.specks import without_specks
from wsigen.layout.subtypes import EMBEDDED, read_subtypes

CANVAS = Box(0, 0, 30, 40)
maps = arrays(np.uint8, CANVAS.shape, elements=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 2]))
TABLE = ClassTable(
    (
        TissueClass("Glass", (240, 240, 240), True),
        *(TissueClass(name, (200, 0, 0)) for name in ("Tumor", "Stroma", "Immune cells", "Other")),
    )
)


def reader(cells):
    return lambda box: cells[box.slices]


def smallest_region(cells):
    """Cells of the smallest region that is connected over edges."""
    return min(
        np.bincount(ndimage.label(cells == value)[0].ravel())[1:].min() for value in np.unique(cells)
    )  # fmt: skip


@settings(max_examples=50)
@given(maps, st.integers(1, 5), st.integers(0, 20), st.integers(0, 25), st.integers(1, 10), st.integers(1, 15))
def test_a_box_is_the_same_part_of_the_whole(cells, largest, y, x, height, width):
    whole = without_specks(reader(cells), CANVAS, CANVAS, largest)
    box = Box(y, x, y + height, x + width)
    assert np.array_equal(without_specks(reader(cells), box, CANVAS, largest), whole[box.slices])


@settings(max_examples=50)
@given(arrays(np.bool_, CANVAS.shape, elements=st.sampled_from([True] + 30 * [False])), st.integers(1, 5))
def test_no_speck_is_left_and_large_regions_stay(dots, largest):
    cells = np.where(dots, 2, np.where(np.arange(CANVAS.width) < 17, 0, 1)).astype(np.uint8)
    made = without_specks(reader(cells), CANVAS, CANVAS, largest)
    assert smallest_region(made) > largest
    for value in np.unique(cells):
        regions, _ = ndimage.label(cells == value)
        large = np.bincount(regions.ravel()) > largest
        large[0] = False
        assert (made[large[regions]] == value).all()


@pytest.mark.parametrize("name", ["infiltrating", "cores", "fragments"])
def test_sampled_layouts_have_no_specks(name):
    """At the class map's own resolution, 0.7 um/px and 8 px a cell, seven cells are 250 um^2."""
    layout = sample_layout(11, (2400, 3200), TABLE, 0, name, read_subtypes(EMBEDDED)[name], 0.7)
    cells = layout.class_map(layout.canvas(8), 8)
    assert smallest_region(cells) > 7
