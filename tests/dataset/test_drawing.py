"""`Drawer` itself: shares of what it draws, with room for chance alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.dataset.drawing import Drawer, little_labelled
from wsigen.dataset.patches import Patches

DRAWS = 4000


def table(labelled: int, unlabelled: int) -> Patches:
    """Patches of 64 cells: a third of the labelled ones of class 1, the rest of class 0."""
    n = labelled + unlabelled
    counts = np.zeros((n, 2), np.int32)
    counts[:labelled, 0] = 64
    counts[: labelled // 3] = (0, 64)
    zeros = np.zeros(n, np.int32)
    return Patches(zeros, zeros, zeros, zeros, counts)


def of_counts(counts: np.ndarray) -> Patches:
    zeros = np.zeros(len(counts), np.int32)
    return Patches(zeros, zeros, zeros, zeros, counts.astype(np.int32))


def drawn(drawer: Drawer, draws: int = DRAWS) -> tuple[np.ndarray, list[int | None]]:
    rows, labels = zip(*(drawer.draw(np.random.default_rng((0, i))) for i in range(draws)), strict=True)
    return np.array(rows), list(labels)


@pytest.mark.parametrize(("labelled", "unlabelled"), [(10_000, 3), (300, 100), (30, 300)])
def test_without_a_share_unlabelled_patches_come_as_often_as_they_are_there(labelled: int, unlabelled: int) -> None:
    rows, _ = drawn(Drawer(table(labelled, unlabelled), 64, 1))
    share = unlabelled / (labelled + unlabelled)
    assert abs((rows >= labelled).mean() - share) < 4 * np.sqrt(share * (1 - share) / DRAWS) + 1e-9


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_that_was_asked_for_is_kept(share: float) -> None:
    rows, labels = drawn(Drawer(table(900, 5), 64, 1, unlabelled_share=share))
    assert abs((rows >= 900).mean() - share) <= 4 * np.sqrt(share * (1 - share) / DRAWS)
    assert all((label is None) == (row >= 900) for row, label in zip(rows, labels, strict=True))
    known = np.array([label for label in labels if label is not None])
    if len(known):
        assert abs((known == 1).mean() - 0.5) < 4 * np.sqrt(0.25 / len(known))


def test_told_one_class_of_a_patch_it_is_drawn_for_the_one_that_fills_half_of_it() -> None:
    """Class 0 fills most of every patch but ten of class 1; class 2 is a minority wherever it is."""
    counts = np.tile(np.array([[40, 0, 20]], np.int32), (100, 1))
    counts[:10] = (10, 50, 4)
    zeros = np.zeros(100, np.int32)
    patches = Patches(zeros, zeros, zeros, zeros, counts)
    assert Drawer(patches, 64, 1).drawn == [{0, 1, 2}]
    drawer = Drawer(patches, 64, 1, most_frequent=True)
    assert drawer.drawn == [{0, 1}]
    two = Patches(zeros, np.arange(100, dtype=np.int32) % 2, zeros, zeros, counts)
    assert Drawer(two, 64, 2, [1, 0], most_frequent=True).drawn == [{0, 1}, set()], "a level that is not drawn teaches nothing"
    rows, labels = drawn(drawer, 500)
    assert all((row < 10) == (label == 1) for row, label in zip(rows, labels, strict=True))
    assert 0.4 < np.mean([label == 1 for label in labels]) < 0.6


def test_a_mostly_unknown_patch_is_of_no_class_where_one_is_told() -> None:
    counts = np.tile(np.array([[64, 0]], np.int32), (90, 1))
    counts[:30] = (1, 0)  # a rim of class 0 around what nobody labelled
    counts[30:60] = (31, 31)
    counts[60:65] = (0, 32)
    zeros = np.zeros(90, np.int32)
    drawer = Drawer(Patches(zeros, zeros, zeros, zeros, counts), 64, 1, most_frequent=True)
    rows, labels = drawn(drawer)
    assert {row for row, label in zip(rows, labels, strict=True) if label is None} == set(range(60))
    assert {row for row, label in zip(rows, labels, strict=True) if label == 1} == set(range(60, 65))
    assert {row for row, label in zip(rows, labels, strict=True) if label == 0} == set(range(65, 90))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 31, 32, 64])] * 2), min_size=1, max_size=8).map(np.array),
    st.sampled_from([64, 128, 256]),
    st.booleans(),
)
def test_every_patch_is_drawn_now_and_then(counts: np.ndarray, cells: int, most_frequent: bool) -> None:
    drawer, rng = Drawer(of_counts(counts), cells, 1, most_frequent=most_frequent), np.random.default_rng(0)
    found = {drawer.draw(rng) for _ in range(500)}  # each comes with at least one draw of 16
    assert {row for row, _ in found} == set(range(len(counts)))
    assert all(counts[row, label] for row, label in found if label is not None)
    little = set(np.flatnonzero(little_labelled(counts, cells)).tolist())
    assert most_frequent or {row for row, label in found if label is None} == little | set(np.flatnonzero(~counts.any(axis=1)))


def test_a_patch_with_little_label_comes_as_an_unlabelled_one() -> None:
    """Slivers of polygons, small discs, a bit of glass: less than 1 / 64 of a patch, beside patches that show more of it."""
    counts = np.zeros((1000, 2), int)
    counts[:10, 0], counts[10:500, 0], counts[500:900, 1], counts[900:910, 1] = 200, 40, 16, 2000
    drawer, rng = Drawer(of_counts(counts), 64 * 64, 1), np.random.default_rng(0)
    rows, labels = zip(*(drawer.draw(rng) for _ in range(DRAWS)), strict=True)
    assert {row for row, label in zip(rows, labels, strict=True) if label == 0} == set(range(10))
    assert {row for row, label in zip(rows, labels, strict=True) if label == 1} == set(range(900, 910))
    share = np.mean([label is None for label in labels])
    assert abs(share - 0.98) < 4 * np.sqrt(0.98 * 0.02 / DRAWS)
    assert little_labelled(counts, 64 * 64).sum() == 890
