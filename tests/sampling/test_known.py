"""Known pixels: when they are let go, and that until then they follow the forward process of their value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.sampling.known import GLASS, NEVER, Known, first_step, graded_starts
from wsigen.sampling.schedule import add_noise, ddim_step, hold, make_schedule

ABAR = np.cos(np.linspace(0.0, 1.55, 100)) ** 2


@given(steps=st.integers(1, 50), strength=st.floats(0.02, 1.0), of_pass=st.floats(0.1, 1.0))
def test_a_pixel_begins_at_the_first_step_that_is_not_noisier_than_asked(steps, strength, of_pass):
    schedule = make_schedule(ABAR, steps, of_pass)
    first = first_step(schedule, of_pass, strength)
    assert 0 <= first < schedule.steps
    shares = [(t + 1) / len(ABAR) for t in schedule.timesteps]
    assert first == schedule.steps - 1 or shares[first] <= strength + 0.02
    assert first == 0 or shares[first - 1] > strength - 0.02
    assert strength < 1.0 or first == 0


@given(st.lists(st.floats(0, 50), min_size=1, max_size=20), st.floats(0, 30), st.integers(1, 60), st.data())
def test_a_margin_is_let_go_later_outwards_and_ends(distances, margin, steps, data):
    first = data.draw(st.integers(0, steps - 1))
    distance = np.sort(np.array([0.0, *distances]))[None]
    starts = graded_starts(distance, margin, first, steps)[0]
    assert (np.diff(starts.astype(int)) >= 0).all()
    assert (starts[distance[0] == 0] == first).all()
    assert (starts[(distance[0] >= margin) & (distance[0] > 0)] == NEVER).all()
    assert ((starts < steps) | (starts == NEVER)).all()


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_held_pixel_is_its_value_at_the_noise_level_of_every_step_and_clean_at_the_end(seed, steps):
    random = np.random.default_rng(seed)
    x0, eps, y = (random.normal(size=(2, 5, 4)).astype(np.float32) for _ in range(3))
    schedule = make_schedule(ABAR, steps)
    starts = random.choice(np.array([0, 1, steps - 1, NEVER, GLASS], np.uint16), (5, 4))
    known = Known(x0, starts)
    for step, abar in enumerate(schedule.abar):
        held = known.held(step)
        got = hold(y, held, x0, eps, abar)
        np.testing.assert_array_equal(got[:, ~held], y[:, ~held])
        np.testing.assert_array_equal(got[:, held], add_noise(x0, eps, abar)[:, held])
    assert (known.held(steps) == (starts >= NEVER)).all()


def test_a_step_from_a_held_value_leads_to_the_same_value_at_the_next_level():
    """So a pixel that is let go goes on from where it was held, and nothing has to be written for it before."""
    random = np.random.default_rng(0)
    x0, eps = (random.normal(size=(2, 8, 8)).astype(np.float32) for _ in range(2))
    schedule = make_schedule(ABAR, 10)
    for here, there in zip(schedule.abar, schedule.abar[1:], strict=False):
        after = ddim_step(add_noise(x0, eps, here), x0, here, there)
        assert after == pytest.approx(add_noise(x0, eps, there), abs=2e-3)
