"""Training crops on a lattice: every place for a crop has one near it; and what a few of them reach."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_pictures import save, slide_with_tissue

from wsigen.base.geometry import Box
from wsigen.evaluation.sides.members import PackedMask
from wsigen.evaluation.sides.places import LATTICE_SHARE, Field, coverage, overlapping, place_training
from wsigen.evaluation.sides.sides import Crop, open_side


@st.composite
def fields(draw):
    """Random tissue on a canvas of some size, and crops that fit on it."""
    side = draw(st.integers(16, 60))
    canvas = draw(st.integers(side, 300)), draw(st.integers(side, 300))
    shape = tuple(max(1, n // draw(st.integers(4, 8))) for n in canvas)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    coarse = rng.random(shape) < draw(st.floats(0.1, 1))
    return Field(PackedMask.of(coarse), canvas, side)


@given(fields())
@settings(deadline=None, max_examples=60)
def test_no_place_is_far_from_the_lattice(field):
    corners = field.lattice(field.side_px // 2, 0.0)
    boxes = [Box(y, x, y + field.side_px, x + field.side_px) for y, x in corners.tolist()]
    places, near = field.near(boxes)
    assert places == near


@given(fields(), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_drawn_crops_have_a_crop_of_the_lattice_within_a_quarter(field, seed):
    if not field.mask.count:
        return
    box = field.draw(np.random.default_rng(seed))
    if box is not None:
        apart = np.abs(field.lattice(field.side_px // 2, 0.0) - [box.y0, box.x0]).max(axis=1)
        assert apart.min() <= field.side_px / 4


@pytest.fixture
def side(tmp_path):
    save(tmp_path / "a.tiff", slide_with_tissue(seed=1), mpp=0.5)
    save(tmp_path / "b.tiff", slide_with_tissue(seed=2, box=(0, 0, 200, 200)), mpp=0.5)
    return open_side("training", tmp_path)


def test_a_lattice_covers_the_tissue_and_not_the_glass(side):
    crops = place_training(side, 10_000, 50, 64, 0.5, 0)
    assert coverage(side, crops, 64, 0.5) > 0.98
    tissue = 350 * 450 + 200 * 200
    assert len(crops) < 1.6 * tissue / 32**2
    for crop in crops:
        tissue = Box(*[(100, 150, 450, 600), (0, 0, 200, 200)][crop.member]).dilate(10)  # a cell of the view
        inside = tissue.intersect(crop.box)
        assert inside.height * inside.width > 0.5 * LATTICE_SHARE * 64**2


def test_fewer_crops_cover_less_and_are_a_function_of_the_seed(side):
    few, again, other = (place_training(side, 60, 50, 64, 0.5, seed) for seed in (0, 0, 1))
    assert few == again != other
    assert len(few) == len(set(few)) == 60
    shares = [coverage(side, place_training(side, n, 50, 64, 0.5, 0), 64, 0.5) for n in (50, 100, 150, 10_000)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(50 * 32**2 / (350 * 450 + 200 * 200), rel=0.5)
    assert coverage(side, [], 64, 0.5) == 0


def test_a_side_of_few_places_gets_random_crops(side):
    assert len(place_training(side, 10_000, 50, 300, 0.5, 0)) == 50


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_overlapping_crops_are_counted(places):
    crops = [Crop(member, Box(y, x, y + 16, x + 16), (100, 100)) for member, y, x in places]
    truth = [any(a is not b and a.member == b.member and a.box.overlaps(b.box) for b in crops) for a in crops]
    assert overlapping(crops) == np.mean(truth)
