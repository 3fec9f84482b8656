"""Every shape QuPath exports, and what comes of it."""

import gzip
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsigen.base.geometry import Box
from wsigen.layout.geojson import read_geojson
from wsigen.layout.layout import UniformLayout
from wsigen.layout.polygons import PolygonLayout, Polygons

SIZE = (1024, 1024)
DEMO = Path(__file__).parents[2] / "examples" / "demo.geojson"


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def feature(rings: Any, classification: Any = "Tumor", kind: str = "Polygon", **more: Any) -> dict[str, Any]:
    if isinstance(classification, str):
        classification = {"name": classification, "color": [200, 0, 0]}
    properties = {"objectType": "annotation", "classification": classification, **more}
    return {
        "type": "Feature",
        "id": "7f1c7c0e-4a5b-4c7f-9d4e-0d6f3a3b2c11",
        "geometry": {"type": kind, "coordinates": rings},
        "properties": properties,
    }


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


ONE = feature([square(128, 256, 640, 768)])


def whole(layout: Any, cell: int = 8) -> np.ndarray:
    return layout.class_map(Box(0, 0, -(-layout.height // cell), -(-layout.width // cell)), cell)


def expect_square(layout: PolygonLayout, index: int = 1) -> None:
    expected = np.zeros((128, 128), np.uint8)
    expected[32:96, 16:80] = index
    np.testing.assert_array_equal(whole(layout), expected)


@pytest.mark.parametrize("data", [collection(ONE), [ONE], ONE], ids=["collection", "list", "feature"])
def test_containers(write, table, data):
    expect_square(read_geojson(write(data), table, SIZE, 0))


@pytest.mark.parametrize(
    "classification",
    [
        {"name": "Tumor", "colorRGB": -3670016},
        {"name": "tumor", "color": [1, 2, 3]},
        {"names": ["TUMOR"], "color": [200, 0, 0]},
        {"names": ["Tumor", "Positive"]},
        {"name": "Tumor: Positive"},
    ],
)
def test_classifications(write, table, classification):
    expect_square(read_geojson(write([feature([square(128, 256, 640, 768)], classification)]), table, SIZE, 0))


def test_classification_as_plain_string(write, table):
    one = feature([square(128, 256, 640, 768)])
    one["properties"]["classification"] = "immune CELLS"
    expect_square(read_geojson(write(one), table, SIZE, 0), 3)


def test_packed_and_bom(tmp_path, write, table):
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(json.dumps(ONE).encode()))
    expect_square(read_geojson(tmp_path / "a.geojson.gz", table, SIZE, 0))
    expect_square(read_geojson(write("\ufeff" + json.dumps(ONE), "b.json"), table, SIZE, 0))


def test_multipolygon_unclosed_and_third_coordinate(write, table):
    halves = (
        [[[*p, 0] for p in square(128, 256, 640, 512)[:-1]]],
        [[[*p, 0] for p in square(128, 512, 640, 768)]],
    )
    expect_square(read_geojson(write(feature(halves, kind="MultiPolygon")), table, SIZE, 0))


def test_collection_points_and_lines(write, table):
    mixed = feature(None)
    mixed["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [
            {"type": "Point", "coordinates": [1, 1]},
            {"type": "GeometryCollection", "geometries": [ONE["geometry"]]},
        ],
    }
    line = feature([[0, 0], [9, 9]], kind="LineString")
    flat = feature([[[0, 0], [9, 9], [18, 18], [0, 0]]])
    layout = read_geojson(write(collection(mixed, line, flat)), table, SIZE, 0)
    expect_square(layout)
    assert layout.notes == (
        "a.geojson: left out: 2 objects without area (points or lines)",
        "a.geojson: left out: 1 polygon without an area",
    )


def test_unclassified_takes_the_class_of_the_empty_name(write, table):
    one = feature([square(128, 256, 640, 768)])
    one["properties"] = None
    expect_square(read_geojson(write(one), table, SIZE, 0, names={"": "Stroma"}), 2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corner=st.tuples(*[st.integers(0, 900)] * 2),
    side=st.tuples(*[st.integers(1100, 4000)] * 2),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_guessed_size_leaves_equal_margins_and_cuts_nothing(write, table, corner, side, scale):
    (x, y), (w, h) = corner, side
    path = write([feature([square(x, y, x + w / 2, y + h)]), feature([square(x + w / 3, y + h / 3, x + w, y + h / 2)])])
    layout = read_geojson(path, table, None, 0, scale=scale)
    assert layout.guessed
    least = 0.02 * max(w, h) if max(x, y) * scale >= 1 else 0.0
    for got, before, drawn in ((layout.width, x, w), (layout.height, y, h)):
        assert got == pytest.approx((before + drawn + max(before, least)) * scale, abs=1)
    assert not read_geojson(path, table, (layout.height, layout.width), 0, scale=scale).guessed


def test_a_drawing_that_begins_in_the_corner_fills_its_image(write, table):
    layout = read_geojson(write(feature([square(0, 0, 700.2, 600)])), table, None, 0)
    assert (layout.height, layout.width) == (600, 701)


def test_scale_multiplies(write, table):
    layout = read_geojson(write(feature([square(64, 128, 320, 384)])), table, SIZE, 0, scale=2.0)
    expect_square(layout)


def test_smaller_wins_in_any_order(write, table):
    small, large = feature([square(256, 256, 512, 512)], "Stroma"), feature([square(0, 0, 1024, 1024)])
    a = whole(read_geojson(write([small, large]), table, SIZE, 0))
    b = whole(read_geojson(write([large, small]), table, SIZE, 0))
    np.testing.assert_array_equal(a, b)
    assert (a == 2).sum() == 32 * 32
    assert (a == 1).sum() == 128 * 128 - 32 * 32


def test_holes_stay_background(write, table):
    layout = read_geojson(write(feature([square(0, 0, 1024, 1024), square(256, 256, 512, 512)])), table, SIZE, 4)
    assert (whole(layout) == 4).sum() == 32 * 32


def test_cells_beyond_the_edge_repeat_the_last(write, table):
    layout = read_geojson(write(feature([square(0, 0, 1003, 1003)])), table, (1003, 1003), 0)
    assert (layout.class_map(Box(-2, -2, 130, 130), 8) == 1).all()
    assert layout.class_map(Box(5, 5, 5, 9), 8).shape == (0, 4)


def test_neighbours_share_an_edge_without_gap(table):
    ring = np.array([[0, 0], [700, 0], [317.3, 900], [0, 900], [0, 0]])
    other = np.array([[700, 0], [1000, 0], [1000, 900], [317.3, 900], [700, 0]])
    left, right = (PolygonLayout(900, 1000, 0, Polygons.of([[r]], [1])) for r in (ring, other))
    assert ((whole(left, 4) + whole(right, 4)) == 1).all()


@st.composite
def layouts(draw: st.DrawFn) -> PolygonLayout:
    rings = []
    rng = random.Random(draw(st.integers(0, 10**6)))
    for _ in range(draw(st.integers(1, 4))):
        centre = np.array([rng.uniform(0, 700), rng.uniform(0, 500)])
        angles = np.sort([rng.uniform(0, 2 * np.pi) for _ in range(rng.randint(3, 12))])
        radius = np.array([rng.uniform(5, 300) for _ in angles])
        ring = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]
        ring = np.rint(ring) if rng.random() < 0.5 else ring
        rings.append([np.concatenate([ring, ring[:1]])])
    return PolygonLayout(500, 700, 0, Polygons.of(rings, range(1, len(rings) + 1)))


@settings(max_examples=60, deadline=None)
@given(
    layouts(),
    st.integers(-3, 60),
    st.integers(-3, 80),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from([4, 8, 32]),
)
def test_any_box_equals_the_whole(layout, y, x, h, w, cell):
    outer = layout.class_map(Box(-3, -3, 130, 150), cell)
    part = layout.class_map(Box(y, x, y + h, x + w), cell)
    want = outer[y + 3 : y + 3 + h, x + 3 : x + 3 + w]
    np.testing.assert_array_equal(part[: want.shape[0], : want.shape[1]], want)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([4, 16]))
def test_centres_agree_with_shapely(seed, cell):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 14)))
    radius = rng.uniform(20, 300, (len(angles), 1))
    ring = rng.uniform(0, 600, 2) + np.stack([np.cos(angles), np.sin(angles)], 1) * radius
    polygon = shapely.Polygon(ring)
    layout = PolygonLayout(512, 640, 0, Polygons.of([[np.concatenate([ring, ring[:1]])]], [1]))
    got = whole(layout, cell) == 1
    ys, xs = np.mgrid[: got.shape[0], : got.shape[1]] * cell + cell / 2
    near = shapely.dwithin(polygon.exterior, shapely.points(xs, ys), 1e-6)
    np.testing.assert_array_equal(got[~near], shapely.contains_xy(polygon, xs, ys)[~near])


def test_demo_layout_covers_its_polygons(table):
    layout = read_geojson(DEMO, table, (4096, 4096), 0)
    cells = np.bincount(whole(layout).ravel(), minlength=5) * 64
    polygons: dict[str, Any] = {name: [] for name in table.names}
    for f in json.loads(DEMO.read_text())["features"]:
        assert set(f) == {"type", "id", "geometry", "properties"}
        polygons[f["properties"]["classification"]["name"]].append(shapely.geometry.shape(f["geometry"]))
    small = {n: shapely.union_all(p) for n, p in polygons.items() if n in ("Immune cells", "Other")}
    for name, shape in small.items():
        assert cells[table.index(name)] == pytest.approx(shape.area, rel=0.02)
    tumor = shapely.union_all(polygons["Tumor"]).difference(small["Immune cells"])
    assert cells[1] == pytest.approx(tumor.area, rel=0.01)
    everything = shapely.union_all([p for ps in polygons.values() for p in ps])
    assert cells[1:].sum() == pytest.approx(everything.area, rel=0.005)
    assert 0.5 < cells[1:].sum() / 4096**2 < 0.62


def test_layouts_travel_to_workers(table):
    layout = read_geojson(DEMO, table, None, 0)
    box = Box(100, 100, 140, 160)
    again = pickle.loads(pickle.dumps(layout))
    np.testing.assert_array_equal(again.class_map(box, 8), layout.class_map(box, 8))
    assert (UniformLayout(600, 700, 2).class_map(box, 8) == np.full(box.shape, 2, np.uint8)).all()
