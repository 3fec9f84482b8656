"""Made pixels beside those that stay: nothing that stays changes, colour is carried over the border, blocks agree."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_making import tissue

from wsigen.slide.blend import CARRIED_PX, REACH_PX, blended


def halves(seed=0, side=400):
    own = tissue(side, side, seed)
    kept = np.zeros((side, side), bool)
    kept[:, : side // 2] = True
    return own, kept


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(-40, 40))
def test_what_is_kept_stays_and_far_from_it_nothing_changes(seed, off):
    own, kept = halves(seed % 7, 320)
    made = np.clip(own.astype(int) + off, 0, 255).astype(np.uint8)
    out = blended(own, made, kept, np.zeros_like(kept))
    np.testing.assert_array_equal(out[kept], own[kept])
    np.testing.assert_array_equal(out[:, 160 + CARRIED_PX + 1 :], made[:, 160 + CARRIED_PX + 1 :])


def test_a_difference_of_colour_is_carried_over_the_border():
    own, kept = halves()
    made = (own * 0.9 + 5).astype(np.uint8)
    out = blended(own, made, kept, np.zeros_like(kept)).astype(float)
    inside, outside = np.s_[:, 200:204], np.s_[:, 196:200]
    wanted = own[inside].mean() - own[outside].mean()
    assert abs(out[inside].mean() - out[outside].mean() - wanted) < 1.5
    assert abs(made[inside].mean() - own[outside].mean() - wanted) > 5


def test_nothing_of_what_is_replaced_shows_unless_it_may():
    own, kept = halves()
    other = own.copy()
    other[:, 200:] = 0  # what was there before
    made = tissue(400, 400, 5)
    hidden = blended(own, made, kept, np.zeros_like(kept))
    np.testing.assert_array_equal(hidden, blended(other, made, kept, np.zeros_like(kept)))
    assert (blended(own, made, kept, ~kept) != blended(other, made, kept, ~kept)).any()


def test_a_pixel_has_the_same_value_in_whatever_block_it_is_joined():
    own, made, random = tissue(900, 900, 1), tissue(900, 900, 2), np.random.default_rng(3)
    kept = np.kron(random.random((9, 9)) < 0.5, np.ones((100, 100), bool))
    mixed = ~kept & np.kron(random.random((9, 9)) < 0.5, np.ones((100, 100), bool))
    whole = blended(own, made, kept, mixed)
    part = np.s_[100:900, 100:900]
    out = blended(own[part], made[part], kept[part], mixed[part])
    inner = np.s_[REACH_PX:, REACH_PX:]
    np.testing.assert_array_equal(out[inner], whole[part][inner])
