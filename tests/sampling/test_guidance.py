"""DiffInfinite's equation 2, per pixel."""

from __future__ import annotations

import numpy as np
import pytest

from wsigen.sampling.guidance import guided


def constant(value: float) -> np.ndarray:
    return np.full((2, 4, 4), value, np.float32)


def test_one_label_is_pushed_away_from_null() -> None:
    out = guided([(constant(3.0), None)], constant(1.0), 0.5)
    assert out.dtype == np.float32
    assert np.allclose(out, 1.5 * 3.0 - 0.5 * 1.0)


@pytest.mark.parametrize(("null", "w"), [(None, 0.5), (constant(1.0), 0.0)])
def test_without_guidance_it_is_the_labels_own(null: np.ndarray | None, w: float) -> None:
    assert np.array_equal(guided([(constant(3.0), None)], null, w), constant(3.0))


def test_every_pixel_takes_its_own_label() -> None:
    top = np.zeros((4, 4), bool)
    top[:2] = True
    left = np.zeros((4, 4), bool)
    left[2:, :2] = True
    right = ~(top | left)
    out = guided([(constant(1.0), top), (constant(2.0), left), (constant(3.0), right)], constant(1.0), 1.0)
    assert np.array_equal(out[0, :2], np.full((2, 4), 1.0))
    assert np.array_equal(out[1, 2:, :2], np.full((2, 2), 3.0))
    assert np.array_equal(out[1, 2:, 2:], np.full((2, 2), 5.0))


def test_null_pixels_stay_null() -> None:
    null = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    assert np.allclose(guided([(null, None)], null, 3.0), null, atol=1e-5)


def test_inputs_are_not_changed() -> None:
    a, b = constant(1.0), constant(2.0)
    mask = np.eye(4, dtype=bool)
    guided([(a, mask), (b, ~mask)], constant(0.5), 2.0)
    assert np.array_equal(a, constant(1.0))
    assert np.array_equal(b, constant(2.0))


def test_no_prediction() -> None:
    with pytest.raises(ValueError, match="at least one"):
        guided([], None, 0.0)
