from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import ConfigError
from wsigen.slide.pyramid import MIN_SIDE, TOP_SIDE, PyramidSpec

SIDES = st.integers(MIN_SIDE, 120_000)


@given(width=SIDES, height=SIDES)
def test_levels_halve_to_the_top(width: int, height: int) -> None:
    spec = PyramidSpec(width, height, 0.5, 20)
    sizes = [spec.level_size(k) for k in range(spec.levels)]
    assert sizes[0] == (height, width)
    assert max(sizes[-1]) <= TOP_SIDE
    assert spec.levels == 2 or max(sizes[-2]) > TOP_SIDE
    for big, small in pairwise(sizes):
        assert small == tuple(-(-n // 2) for n in big)


@given(width=st.integers(MIN_SIDE, 9000), height=st.integers(MIN_SIDE, 9000))
def test_blocks_share_out_the_tiles_of_their_levels(width: int, height: int) -> None:
    spec = PyramidSpec(width, height, 0.5, 20)
    for level in range(spec.block_levels):
        tiles = [rc for ij in spec.grid for rc in spec.tiles_of_block(ij, level)]
        assert sorted(tiles) == list(spec.tiles_of_level(level))


@given(width=st.integers(MIN_SIDE, 9000), height=st.integers(MIN_SIDE, 9000))
def test_block_boxes_cover_every_level_once(width: int, height: int) -> None:
    spec = PyramidSpec(width, height, 0.5, 20)
    for level in range(4):
        h, w = spec.level_size(level)
        boxes = [spec.block_box(ij, level) for ij in spec.grid]
        assert sum(b.height * b.width for b in boxes) == h * w
        assert (max(b.y1 for b in boxes), max(b.x1 for b in boxes)) == (h, w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 511}, "at least 512 px"),
        ({"mpp": 0.0}, "mpp is 0.0"),
        ({"mpp": float("nan")}, "mpp is nan"),
        ({"magnification": -1.0}, "magnification"),
        ({"compression": "webp"}, "'jpeg' and 'deflate'"),
        ({"quality": 0}, "quality is 0"),
        ({"tile": 500}, "multiple of 16"),
        ({"block": 1024}, "multiple of four tiles"),
    ],
)
def test_bad_numbers_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PyramidSpec(**{"width": 1000, "height": 1000, "mpp": 0.5, "magnification": 20, **change})  # type: ignore[arg-type]
