"""Windows: they hold regions and surroundings, lie on the lattice of every pass, and do not overlap."""

import time
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.geometry import Box
from wsigen.base.noise import offset
from wsigen.editing.windows import seed_of, surroundings_px, windows_of
from wsigen.sampling.shifted import ShiftedPlan

RECTANGLES = st.lists(
    st.tuples(st.floats(0, 9000), st.floats(0, 7000), st.floats(1, 900), st.floats(1, 900)), min_size=1, max_size=6
)


SIZES = st.sampled_from([(8000, 10001), (900, 700), (1024, 5000)])


@given(RECTANGLES, st.integers(0, 400), st.sampled_from([8, 32, 128]), SIZES)
def test_windows_hold_what_they_must(rectangles, around, step, size):
    bounds = np.array([[x, y, min(x + w, size[1]), min(y + h, size[0])] for x, y, w, h in rectangles])
    bounds = bounds[(bounds[:, 0] < size[1]) & (bounds[:, 1] < size[0])]
    if not len(bounds):
        return
    canvas = Box(0, 0, *size)
    windows = windows_of(bounds, size, around, step)
    for window in windows:
        assert window.intersect(canvas) == window
        assert window.y0 % step == window.x0 % step == 0
        assert window.y1 % step == 0 or window.y1 == size[0]
        assert window.x1 % step == 0 or window.x1 == size[1]
        assert window.height >= min(1024, size[0])
        assert window.width >= min(1024, size[1])
    for x0, y0, x1, y1 in bounds:
        wanted = Box(int(y0), int(x0), int(np.ceil(y1)), int(np.ceil(x1))).dilate(around).intersect(canvas)
        assert any(window.intersect(wanted) == wanted for window in windows)
    for n, window in enumerate(windows):
        assert not any(window.overlaps(other) for other in windows[n + 1 :])


def test_thousands_of_regions_are_planned_at_once():
    ys, xs = np.divmod(np.arange(2000), 50)
    bounds = np.stack([xs * 3000, ys * 3000, xs * 3000 + 100, ys * 3000 + 100], axis=1).astype(float)
    begin = time.process_time()
    assert len(windows_of(bounds, (150_000, 150_000), 256, 8)) == 2000
    assert time.process_time() - begin < 20


@given(st.integers(1200, 5000), st.integers(1200, 5000), st.integers(1, 2000), st.integers(0, 2**32), st.integers(0, 9))
def test_no_crop_is_moved_onto_what_is_made(y, x, side, seed, step):
    factor, crop, overlap = 8, 64, 8
    card = SimpleNamespace(crop_latent=crop, latent=SimpleNamespace(factor=factor))
    bounds = np.array([[x, y, x + side, y + side]])
    (window,) = windows_of(bounds, (9216, 9216), surroundings_px(card), factor)
    canvas = Box(0, 0, window.height // factor, window.width // factor)
    plan = ShiftedPlan(canvas.height, canvas.width, seed, side=crop, overlap=overlap)
    made = Box(y // factor, x // factor, -(-(y + side) // factor), -(-(x + side) // factor))
    made = made.shift(-window.y0 // factor, -window.x0 // factor)
    dy, dx = offset(seed, 0, step, crop - overlap)
    for crop_of in plan.crops(step, canvas):
        if crop_of.box.overlaps(made):
            assert (crop_of.box.y0 - dy) % (crop - overlap) == (crop_of.box.x0 - dx) % (crop - overlap) == 0


def test_windows_have_noise_of_their_own():
    seeds = {seed_of(seed, Box(y, x, y + 1024, x + 1024)) for seed in (0, 1) for y in (0, 64) for x in (0, 64)}
    assert len(seeds) == 8
    assert all(1 < seed < 2**64 for seed in seeds)
