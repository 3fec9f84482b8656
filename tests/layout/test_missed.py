"""Polygons that no cell shows are those that are not on the class map drawn of them alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.base.geometry import Box
from wsigen.layout.polygons import PolygonLayout, Polygons

SIDE = 200
place = st.floats(-30, SIDE + 30, allow_nan=False, width=32)
corners = st.lists(st.tuples(st.floats(-15, 15, width=32), st.floats(-15, 15, width=32)), min_size=3, max_size=5)


def ring(centre, around):
    points = np.array([*around, around[0]], np.float64) + centre
    return [points]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.tuples(place, place), corners), min_size=1, max_size=6), st.sampled_from([1.0, 2.5]))
@pytest.mark.parametrize("at_once", [2**20, 8])
def test_missed_polygons_are_on_no_class_map(at_once, drawn, scale):
    polygons = [ring(centre, around) for centre, around in drawn]
    side = round(SIDE * scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsigen.layout.polygons.AT_ONCE", at_once)
        missed = PolygonLayout(side, side, 0, Polygons.of(polygons, [1] * len(polygons)), (scale, scale)).missed(8)
    for number, polygon in enumerate(polygons):
        x0, y0 = polygon[0].min(0) * scale
        x1, y1 = polygon[0].max(0) * scale
        on_slide = x1 > 0 and y1 > 0 and x0 < side and y0 < side
        alone = PolygonLayout(side, side, 0, Polygons.of([polygon], [1]), (scale, scale))
        canvas = alone.canvas(8)
        shown = alone.classes(Box(0, 0, canvas.y1, canvas.x1), 8).any()
        assert (number in missed) == (on_slide and not shown and min(x1 - x0, y1 - y0) < 16)
