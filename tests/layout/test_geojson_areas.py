"""Class areas after reading, against shapely on the same file: every shape, within a cell along the borders."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.dataset.labels import PolygonLabels
from wsigen.layout.geojson import read_geojson

SIDE = 640


def blob(rng, most=250):
    """A polygon around a centre: smooth or ragged, on whole px or not."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 40)))
    radius = rng.uniform(8, most) * rng.uniform(rng.choice([0.3, 0.9]), 1, len(angles))
    ring = rng.uniform(40, SIDE - 40, 2) + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]
    ring = np.clip(np.rint(ring) if rng.random() < 0.5 else ring.round(2), 0, SIDE)
    return shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False)


def drawing(rng):
    """A polygon, one with holes or nests, or several as *Merge selected* makes them."""
    shape = blob(rng)
    for _ in range(rng.integers(0, 4)):
        shape = shape.difference(blob(rng, 60)) if rng.random() < 0.5 else shape.union(blob(rng, 60))
    return shapely.MultiPolygon([p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and p.area > 1])


def expected(drawn):
    """What shows of each class: parts from large to small, each over those before."""
    parts = [(part, name) for shape, name in drawn for part in shape.geoms]
    parts.sort(key=lambda pair: -pair[0].area)
    shown = {name: shapely.Polygon() for _, name in drawn}
    for part, name in parts:
        shown = {n: s.union(part) if n == name else s.difference(part) for n, s in shown.items()}
    return shown


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.sampled_from([4, 8]))
def test_areas_agree_with_shapely(write, table, seed, cell):
    rng = np.random.default_rng(seed)
    drawn = [(d, str(rng.choice(table.names[1:]))) for _ in range(rng.integers(1, 12)) if len((d := drawing(rng)).geoms)]
    if not drawn:
        return
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)), "properties": {"classification": {"name": name}}}
        for shape, name in drawn
    ]
    path = write(features)
    layout = read_geojson(path, table, (SIDE, SIDE), 0)
    labels = PolygonLabels(path, table).layout(SimpleNamespace(height=SIDE, width=SIDE, scanned=None), (SIDE // 2, SIDE // 2))
    cells = layout.class_map(Box(0, 0, SIDE // cell, SIDE // cell), cell)
    halved = labels.class_map(Box(0, 0, SIDE // 16, SIDE // 16), 8)
    ys, xs = np.mgrid[: cells.shape[0], : cells.shape[1]] * cell + cell / 2
    for name, shape in expected(drawn).items():
        index = table.index(name)
        assert abs((cells == index).sum() * cell**2 - shape.area) <= shape.length * cell
        assert abs((halved == index).sum() * 16**2 - shape.area) <= shape.length * 16
        sure = ~shapely.dwithin(shape.boundary, shapely.points(xs, ys), 1e-6)
        np.testing.assert_array_equal((cells == index)[sure], shapely.contains_xy(shape, xs, ys)[sure])
    assert set(np.unique(halved)) <= {UNKNOWN, *(table.index(name) for _, name in drawn)}


@pytest.mark.parametrize("count", [1, 300])
def test_polygons_painted_together_and_alone_are_the_same(write, table, count, monkeypatch):
    rng = np.random.default_rng(count)
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(blob(rng, 40))), "properties": {"classification": name}}
        for name in rng.choice(table.names[1:], count)
    ]
    layout = read_geojson(write(features), table, (SIDE, SIDE), 0)
    box = Box(3, 5, 80, 76)
    together = layout.class_map(box, 8)
    monkeypatch.setattr("wsigen.layout.polygons.AT_ONCE", 1)
    np.testing.assert_array_equal(layout.class_map(box, 8), together)
