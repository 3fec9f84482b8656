import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field, offset, priority_field

PINNED_NORMAL = ["-0.568665", "0.389914", "-1.139542", "-1.024605"]
PINNED_PRIORITY = [7192040951204772984, 15875710056256193751, 15955782016731973626, 4945456947792276366]
PINNED_OFFSET = (29, 25)


def test_pinned_values_never_change():
    field = normal_field(1234, Stream.START, Box(62, 126, 66, 130), 2, level=1, step=0)
    assert field.dtype == np.float32
    assert [f"{v:.6f}" for v in field[0, 1]] == PINNED_NORMAL
    assert priority_field(7, Box(63, 63, 65, 65), step=3).ravel().tolist() == PINNED_PRIORITY
    assert offset(5, 0, 9, 48) == PINNED_OFFSET


@given(
    st.integers(0, 2**64 - 1),
    st.tuples(st.integers(0, 150), st.integers(0, 150), st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([Stream.START, Stream.STEP]),
)
def test_a_box_does_not_depend_on_how_it_is_cut(seed, corner, stream):
    y, x, h, w = corner
    box = Box(y, x, y + h, x + w)
    whole = normal_field(seed, stream, box, 3, level=2, step=5)
    cut = Box(y + h // 2, x + w // 3, y + h, x + w)
    part = normal_field(seed, stream, cut, 3, level=2, step=5)
    assert np.array_equal(whole[(slice(None), *cut.relative_to(box).slices)], part)


def test_values_are_standard_normal_and_fields_differ():
    a = normal_field(1, Stream.START, Box(0, 0, 512, 512), 4)
    assert abs(a.mean()) < 0.005
    assert abs(a.std() - 1) < 0.005
    assert abs((a**4).mean() - 3) < 0.05
    for other in (
        normal_field(2, Stream.START, Box(0, 0, 512, 512), 4),
        normal_field(1, Stream.STEP, Box(0, 0, 512, 512), 4),
        normal_field(1, Stream.START, Box(0, 0, 512, 512), 4, level=1),
        normal_field(1, Stream.START, Box(0, 0, 512, 512), 4, step=1),
    ):
        assert abs(np.corrcoef(a.ravel(), other.ravel())[0, 1]) < 0.005
    shifted = normal_field(1, Stream.START, Box(64, 0, 576, 512), 4)
    assert abs(np.corrcoef(a.ravel(), shifted.ravel())[0, 1]) < 0.005


def test_seed_out_of_range_is_refused():
    with pytest.raises(ValueError, match="seed"):
        normal_field(-1, Stream.START, Box(0, 0, 1, 1), 1)
