"""Which levels a cascade has, and how canvases are cut into chunks."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.sampling.passes import cascade_scales, default_chunk


@pytest.mark.parametrize(
    ("mpps", "finest", "levels", "size", "chosen"),
    [
        ([0.7], 0.7, 1, 4000, [(0, 1)]),
        ([0.7, 1.4, 2.8], 0.7, 3, 4000, [(2, 4), (1, 2), (0, 1)]),
        ([0.7, 1.4, 2.8], 0.7, 2, 4000, [(1, 2), (0, 1)]),
        ([0.7, 1.4, 2.8], 0.7, 3, 1500, [(1, 2), (0, 1)]),  # an overview of 375 px is below a crop
        ([0.7, 1.0, 2.8], 0.7, 3, 4000, [(2, 4), (0, 1)]),  # 1.43 times is no whole multiple
        ([0.5, 1.0, 1.5], 0.5, 3, 4000, [(1, 2), (0, 1)]),  # nor is 3 one of 2
        ([None], None, 1, 4000, [(0, 1)]),
        ([1.4, 2.8], 0.7, 2, 4000, [(1, 4), (0, 2)]),  # cells of a grid that are larger than those of the slide
    ],
)
def test_levels_of_a_cascade(mpps, finest, levels, size, chosen):
    assert cascade_scales(mpps, finest, levels, size, size, 512) == chosen


sides = st.integers(4, 64).map(lambda half: 2 * half)


@given(height=st.integers(64, 100_000), width=st.integers(64, 100_000), side=sides, workers=st.integers(1, 64))
def test_chunks_hold_whole_crops_and_every_worker_has_some(height, width, side, workers):
    chunk = default_chunk(height, width, side, workers)
    assert chunk in (2 * side, 4 * side, 8 * side)
    chunks = math.ceil(height / chunk) * math.ceil(width / chunk)
    assert chunk <= 4 * side or chunks >= 2 * workers
    assert chunks > 1 or max(height, width) <= 2 * side


def test_only_a_pass_that_starts_from_another_keeps_to_it():
    from specs import PASS

    assert replace(PASS, index=1, start="previous", consistency="picture").consistency == "picture"
    for more in ({}, {"index": 1}, {"start": "previous"}):
        with pytest.raises(ValueError, match="consistency"):
            replace(PASS, **{"consistency": "picture", **more})
