"""Every bad GeoJSON gets one line: the file, the feature, and what to do."""

import gzip
import json
import math

import numpy as np
import pytest

from wsigen.base.errors import LayoutError
from wsigen.layout.geojson import read_geojson
from wsigen.layout.read import read_layout

SIZE = (1024, 1024)


def polygon(*points, name=None, classification="Tumor", **more):
    ring = [list(p) for p in points]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"classification": {"name": classification}, "name": name, **more},
    }


def box(x0, y0, x1, y1, **more):
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1), **more)


GOOD = box(0, 0, 900, 900)


def fails(path, table, *parts, size=SIZE, scale=1.0, layout_mpp=None):
    with pytest.raises(LayoutError) as caught:
        read_geojson(path, table, size, 0, scale, layout_mpp=layout_mpp)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    for part in parts:
        assert part in message, message
    return message


def test_missing_file(tmp_path, table):
    fails(tmp_path / "none.geojson", table, "no such layout file", "check its path")
    fails(tmp_path, table, "cannot be read")


@pytest.mark.parametrize("text", ["", "hello", "{", '{"type": ', "[1, 2", '{"a": ' + "9" * 5000 + "}"])
def test_not_json(write, table, text):
    fails(write(text), table, "not JSON")


def test_lists_of_nothing_are_refused_before_they_are_parsed(write, table):
    fails(write("[" + ",".join(["[]"] * 5000) + "]"), table, "5001 lists in", "no coordinates")


def test_a_gzip_bomb_is_not_unpacked(tmp_path, table):
    path = tmp_path / "a.geojson"
    path.write_bytes(gzip.compress(b" " * 2**26))
    fails(path, table, "more than 200 times its size", "unpack it")


@pytest.mark.parametrize("data", [{}, [1, 2], 3, "text", None, {"type": "Topology"}, {"type": "FeatureCollection"}])
def test_not_geojson(write, table, data):
    fails(write(json.dumps(data)), table, "not GeoJSON", "QuPath")


def test_binary_and_damaged_gzip(tmp_path, table):
    path = tmp_path / "a.geojson"
    path.write_bytes(b"\xff\xfe\x00\x81" * 10)
    fails(path, table, "not GeoJSON")
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode())[:-20])
    fails(path, table, "gzip", "damaged")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"type":"Polygon","coordinates":' + "[" * 50_000])
def test_nested_too_deeply(write, table, text):
    fails(write(text), table)


def test_nested_collections_and_rings(write, table):
    g = {"type": "Point", "coordinates": [0, 0]}
    for _ in range(400):
        g = {"type": "GeometryCollection", "geometries": [g]}
    fails(write(g), table, "no polygons")
    fails(
        write(json.dumps({"type": "Polygon", "coordinates": [[[[1, 2]], [[3, 4]]]]})),
        table,
        "feature 1",
        "pair of numbers",
    )


def test_unpacked_too_large(tmp_path, table, monkeypatch):
    monkeypatch.setattr("wsigen.layout.geojson_file.MAX_BYTES", 2**20)
    path = tmp_path / "bomb.geojson.gz"
    path.write_bytes(gzip.compress(b" " * 2**22))
    fails(path, table, "too large")


def test_no_polygons(write, table):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {}}
    fails(write([point]), table, "no polygons", "1 object without area (points or lines)")
    fails(write({"type": "FeatureCollection", "features": []}), table, "no polygons")


def test_crossing_itself_so_that_it_can_be_read_in_two_ways(write, table):
    corners = [(400 + 300 * math.cos(a), 400 + 300 * math.sin(a)) for a in np.linspace(0, 4 * math.pi, 6)[:-1]]
    star = polygon(*corners, name="Nest A")  # its middle is wound around twice: a hole, or not
    fails(write([GOOD, star]), table, "feature 2 (", "'Nest A'", "crosses itself at x=", "two ways", "redraw")


def test_hole_outside(write, table):
    bad = box(100, 100, 600, 600)
    bad["geometry"]["coordinates"].append([[700, 700], [800, 700], [800, 800], [700, 700]])
    fails(write([bad]), table, "feature 1 (", "not valid", "hole")


def test_out_of_range(write, table):
    message = fails(write([GOOD, box(100, 100, 1100, 200)]), table, "feature 2", "x 100 to 1100", "1024 x 1024")
    assert "--layout-mpp" in message
    fails(write([box(-20, 0, 900, 900)]), table, "feature 1", "above 0")
    read_geojson(write([box(-1, -1, 1025, 1025)]), table, SIZE, 0)


def test_unknown_class(write, table):
    message = fails(write([box(0, 0, 900, 900, classification="Tumour")]), table, "'Tumour'", "did you mean 'Tumor'?")
    assert "Glass, Tumor, Stroma, Immune cells, Other" in message


def test_unclassified(write, table):
    fails(write([box(0, 0, 900, 900, classification=None, name="A")]), table, "'A'", "no class is set", "Stroma")


@pytest.mark.parametrize(
    "extra",
    [
        {"units": "micrometer"},
        {"crs": {"type": "name", "properties": {"name": "µm"}}},
        {"properties": {"unit": "um"}},
    ],
)
def test_declared_micrometres(write, table, extra):
    data = {"type": "FeatureCollection", "features": [GOOD], **extra}
    fails(write(data), table, "um, not pixels", "--layout-mpp 1")
    for mpp in (1.0, 0.5):
        assert read_geojson(write(data), table, None, 0, scale=1 / mpp, layout_mpp=1.0).width == 900 / mpp
    fails(write(data), table, "in um, but --layout-mpp is 0.25", "--layout-mpp 1", size=None, scale=0.357, layout_mpp=0.25)


@pytest.mark.parametrize("unit", [1.0, 0.7, 1000.0])
def test_a_drawing_is_refused_alike_whatever_its_unit(write, table, unit):
    """What is drawn far outside, and what is wound around twice: the same of a file in px, in um and in mm (0.7 um/px)."""

    def in_units(feature):
        ring = np.array(feature["geometry"]["coordinates"][0]) / scale
        return {**feature, "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]}}

    scale = {1.0: 1.0, 0.7: 1 / 0.7, 1000.0: 1000 / 0.7}[unit]
    corners = [(1200 + 300 * math.cos(a), 1200 + 300 * math.sin(a)) for a in np.linspace(0, 4 * math.pi, 6)[:-1]]
    ground, far, star = (in_units(f) for f in (box(0, 0, 2000, 2000), box(2143, 100, 3428, 900), polygon(*corners)))
    fails(write([ground, far]), table, "out of range, x 2143 to 3428", "2048 x 2048", size=(2048, 2048), scale=scale)
    fails(write([ground, star]), table, "two ways", size=(2048, 2048), scale=scale)
    assert not read_geojson(write([ground]), table, (2048, 2048), 0, scale).notes


def test_too_small_for_pixels(write, table):
    fails(write([box(0, 0, 300, 200)]), table, "x=300, y=200", "micrometres", "--layout-mpp", size=None)
    fails(write([box(0, 0, 300, 200)]), table, "micrometres", size=(4096, 4096))
    read_geojson(write([box(0, 0, 300, 200)]), table, SIZE, 0)
    assert read_geojson(write([box(0, 0, 300, 200)]), table, None, 0, scale=4.0).height == 800


def test_empty(write, table):
    flat = polygon((0, 0), (900, 900), (450, 450))
    fails(write([flat]), table, "empty", "no polygon has an area")
    fails(write([box(0, 0, 900, 900, classification="glass")]), table, "empty", "background (Glass)")


def test_absurd(write, table):
    fails(write([box(0, 0, 2e6, 900)]), table, "beyond 1000000 px", size=None)
    fails(write([GOOD]), table, "beyond 1000000 px", size=(10**7, 1024))
    fails(write([GOOD]), table, "scale", scale=float("nan"))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_not_finite(write, table, value):
    text = json.dumps([box(0, 0, 900, 777)]).replace("777", value)
    fails(write(text), table, "feature 1", "not finite")


@pytest.mark.parametrize("value", ["null", '"x"', "{}", "[]", "1" + "0" * 400])
def test_not_a_number(write, table, value):
    fails(write(json.dumps([box(0, 0, 900, 777)]).replace("777", value)), table, "feature 1")


@pytest.mark.parametrize("coordinates", [None, 3, {}, [[1]], [None], "x"])
def test_broken_coordinates(write, table, coordinates):
    fails(write({"type": "Polygon", "coordinates": coordinates}), table)
    fails(write({"type": "MultiPolygon", "coordinates": coordinates}), table)


def test_broken_features(write, table):
    fails(write([{"type": "Feature", "geometry": None}]), table, "no polygons", "1 object without geometry")
    fails(write([{"type": "Feature", "geometry": 3}]), table, "feature 1", "not known")
    fails(write([{"type": "Feature", "geometry": {"type": "Circle"}}]), table, "'Circle'")
    fails(write({"type": "FeatureCollection", "features": [GOOD, 5]}), table, "feature 2:")


def test_dispatch_names_both_kinds(write, table):
    with pytest.raises(LayoutError, match="neither GeoJSON nor an image"):
        read_layout(write("hello", "layout.txt"), table, SIZE, 0)
    assert read_layout(write(GOOD, "layout.dat"), table, SIZE, 0).width == 1024


def test_outlines_that_nobody_drew_are_refused_at_once(write, table):
    """To mend a tangle of 2,000 edges takes a quarter of an hour."""
    corners = np.random.default_rng(0).uniform(0, 1000, (2000, 2)).round(2).tolist()
    fails(write([GOOD, polygon(*corners)]), table, "feature 2", "two ways")


def test_very_many_on_one_place_are_not_compared(write, table):
    two = [box(0, 0, 500, 500), box(0, 0, 500, 500, classification="Stroma")]
    layout = read_geojson(write([GOOD, *two * 500]), table, SIZE, 0)
    assert "so many polygons overlap" in layout.notes[0]
