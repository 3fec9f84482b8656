"""From a class map to the conditions of a crop's calls."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_bundles

from wsigen.base.classes import UNKNOWN
from wsigen.models.card import BundleCard, make_card
from wsigen.models.conditioning import NULL, conditions_of


def card(kind: str) -> BundleCard:
    return make_card(tiny_bundles.tiny_card(kind), "card")


def mixed() -> np.ndarray:
    """Quarters of background, stroma, tumor and unknown."""
    classes = np.zeros((8, 8), np.uint8)
    classes[:4, 4:], classes[4:, :4], classes[4:, 4:] = 2, 1, UNKNOWN
    return classes


def test_class_map_is_one_condition() -> None:
    [(condition, mask)] = conditions_of(card("class-map"), mixed())
    assert mask is None
    assert condition.class_map is not None
    assert np.array_equal(condition.class_map, mixed())


@pytest.mark.parametrize("kind", ["class-map", "class-tokens", "text", "none"])
def test_all_unknown_is_the_null_condition(kind: str) -> None:
    [(condition, mask)] = conditions_of(card(kind), np.full((8, 8), UNKNOWN, np.uint8))
    assert condition is NULL
    assert mask is None


@pytest.mark.parametrize("kind", ["class-tokens", "text"])
def test_one_condition_per_label_ascending(kind: str) -> None:
    pairs = conditions_of(card(kind), mixed())
    assert [c.label for c, _ in pairs] == [1, 2, None]
    assert pairs[-1][0] is NULL
    masks = [m for _, m in pairs if m is not None]
    assert np.array_equal(np.sum(masks, axis=0), np.ones((8, 8)))
    assert masks[0][:4, :4].all()  # background goes with the first


@pytest.mark.parametrize(("value", "label"), [(0, None), (2, 2)])
def test_one_label_needs_no_mask(value: int, label: int | None) -> None:
    [(condition, mask)] = conditions_of(card("class-tokens"), np.full((8, 8), value, np.uint8))
    assert condition.label == label
    assert mask is None


def test_background_and_one_label_is_one_call() -> None:
    classes = np.zeros((8, 8), np.uint8)
    classes[2:] = 1
    [(condition, mask)] = conditions_of(card("class-tokens"), classes)
    assert condition.label == 1
    assert mask is None
