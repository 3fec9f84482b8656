"""Cleaning of drawn class maps, against maps cleaned by hand."""

import numpy as np

from wsigen.layout.cleaning import clean, remove_tiny, touching, unknown_borders

U = 255


def cells(*rows):
    return np.array([[U if c == "?" else int(c) for c in row] for row in rows], np.uint8)


def pairs(count, *allowed):
    found = np.eye(count, dtype=bool)
    for a, b in allowed:
        found[a, b] = found[b, a] = True
    return found


def test_both_sides_of_a_border_that_cannot_be_become_unknown():
    given = cells("00112", "00112", "00222", "00222")
    expected = cells("00112", "00112", "0??22", "0??22")
    assert np.array_equal(unknown_borders(given, pairs(3, (0, 1), (1, 2))), expected)


def test_borders_of_unknown_stay():
    given = cells("0?2", "0?2")
    assert np.array_equal(unknown_borders(given, pairs(3)), given)


def test_indices_of_classes_mean_nothing():
    """Classes 0 and 2 may touch, 0 and 1 may not, whatever the distance of their indices."""
    given = cells("0022", "0011")
    assert np.array_equal(unknown_borders(given, pairs(3, (0, 2), (1, 2))), cells("0022", "0??1"))


def test_a_tiny_region_goes_to_the_class_around_it_not_to_the_lowest():
    given = cells("22222", "20222", "22222", "11111", "11111")
    assert np.array_equal(remove_tiny(given, 3), cells("22222", "22222", "22222", "11111", "11111"))


def test_regions_are_connected_over_edges_and_large_ones_stay():
    given = cells("1000", "0100", "0011", "0011")
    assert np.array_equal(remove_tiny(given, 3), cells("0000", "0000", "0011", "0011"))
    assert np.array_equal(remove_tiny(given, 1), given)


def test_neighbouring_tiny_regions_do_not_decide_each_other():
    given = cells("33333", "31233", "33333")
    assert np.array_equal(remove_tiny(given, 2), np.full((3, 5), 3, np.uint8))


def test_a_tiny_region_in_the_unknown_becomes_unknown():
    assert np.array_equal(remove_tiny(cells("???", "?1?", "???"), 2), np.full((3, 3), U, np.uint8))


def test_all_of_it():
    given = cells("000000", "011110", "011210", "011110", "000000")
    assert np.array_equal(clean(given, pairs(3, (0, 1), (1, 2)), 2), cells("000000", "011110", "011110", "011110", "000000"))
    assert np.array_equal(given[2], [0, 1, 1, 2, 1, 0])


def test_which_classes_touch():
    found = touching([cells("01?2", "01?2"), cells("1", "2")], 4)
    assert np.array_equal(found, pairs(4, (0, 1), (1, 2)))
