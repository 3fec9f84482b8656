"""JSON that is read element by element says the same as JSON that is read at once, and takes little memory."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz.mutations import spoil_bytes
from wsigen.base.errors import LayoutError
from wsigen.base.geometry import Box
from wsigen.layout import long_json
from wsigen.layout.geojson import read_geojson
from wsigen.layout.long_json import LongList, parse_long

WORDS = st.text(st.sampled_from('ab[]{},:"\\ é€\n'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(0, 9, width=16) | WORDS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """What is long has a hundred bytes, and blocks end anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("LONG", 24), ("BATCH", 16), ("BLOCK", 7)):
            patch.setattr(long_json, name, value)
        yield


def whole(value):
    """The value with all that was put off."""
    if isinstance(value, LongList | list):
        return [whole(item) for item in value]
    return {key: whole(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(VALUES, st.booleans(), st.sampled_from((None, 1)))
def test_element_by_element_is_the_same(value, plain, indent):
    text = json.dumps(value, ensure_ascii=plain, indent=indent).encode()
    assert whole(parse_long(text, lambda item: item)) == value


@given(VALUES, st.integers(0, 10**9))
def test_what_is_no_json_is_refused_if_all_of_it_is_read(value, seed):
    text = spoil_bytes(json.dumps({"features": value}, ensure_ascii=False).encode(), random.Random(seed))
    try:
        expected = json.loads(text.decode())
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  (JSONDecodeError, UnicodeDecodeError, or its own)
            whole(parse_long(text, lambda item: item))
    else:
        assert repr(whole(parse_long(text, lambda item: item))) == repr(expected)  # NaN is NaN


@pytest.mark.parametrize(
    "text", ["[%s,]", "[,%s]", "[%s,,1]", '{"a":1,%s}', '{"a":[%s]]}', '{"a":[%s}}', "[%s] 1", "[%s", '["\\%s"]', '{"a" %s}']
)
def test_commas_and_brackets_must_fit(text):
    with pytest.raises(ValueError):  # noqa: PT011  (as above)
        whole(parse_long((text % ("1234567," * 9 + "8")).encode(), lambda item: item))


def test_limits(monkeypatch):
    with pytest.raises(ValueError, match="more than 12 levels"):
        whole(parse_long(b"[" * 200 + b"]" * 200, dict))
    monkeypatch.setattr(long_json, "MOST_ENTRIES", 3)
    with pytest.raises(ValueError, match="more than 3 entries"):
        parse_long(json.dumps({f"entry {i}": i for i in range(4)}).encode(), dict)


@pytest.mark.parametrize("value", ["é" * 40, {"thumb": "x" * 99}, [["\\" * 50]], {f"entry {i}": i for i in range(2000)}])
def test_strings_and_objects_may_be_long(value):
    assert whole(parse_long(json.dumps(value).encode(), lambda item: item)) == value


def test_nesting_is_refused_before_much_text_is_searched_again_and_again(tmp_path, table, monkeypatch):
    searched, split = [], long_json._split
    monkeypatch.setattr(long_json, "_split", lambda text, a, b: searched.append(b - a) or split(text, a, b))
    inner = json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [400, 0], [400, 400]]] * 99})
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "GeometryCollection", "geometries": [' * 48 + inner + "]}" * 48)
    with pytest.raises(LayoutError, match="nests more than 12 levels"):
        read_geojson(path, table, (800, 800), 0)
    assert sum(searched) < 16 * path.stat().st_size


def test_layouts_are_the_same_when_they_are_long(tmp_path, table):
    path = tmp_path / "a.geojson"
    square = [[0, 0], [800, 0], [800, 800], [0, 800], [0, 0]]
    hole = [[160.5, 160], [320, 160], [320, 320, 0], [160, 320]]
    inner = {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[hole]]}}
    inner["properties"] = {"classification": {"name": "Tumor"}, "measurements": {"Area": float("nan")}}
    outer = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square, hole]}}
    outer["properties"] = {"classification": {"name": "Stroma"}, "childObjects": [inner, inner]}
    layouts = []
    for data in ([outer], {"type": "FeatureCollection", "features": [outer, outer]}, outer):
        path.write_text(json.dumps(data))
        layouts.append(read_geojson(path, table, (800, 800), 0))
    path.write_text(json.dumps([outer]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_json, "LONG", 2**20)
        layouts.append(read_geojson(path, table, (800, 800), 0))
    *others, once = [layout.class_map(Box(0, 0, 100, 100), 8) for layout in layouts]
    assert len(np.unique(once)) == 2
    assert all((other == once).all() for other in others)


REFUSED = """
import sys, warnings
from pathlib import Path
from benchmarks.processes import peak_rss
from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.errors import LayoutError
from wsigen.layout.geojson import read_geojson

table = ClassTable((TissueClass("Tumor", (200, 0, 0)),))
path = Path(sys.argv[1])
hole, feature = b"[[0,0],[0,9],[9,9]],", b'{"type":"Feature","geometry":'
for before, each, after in (
    (b"[", b'"ab",', b'""]'),
    (feature + b'null,"properties":{"x":[', b'"ab",', b'""]}}'),
    (feature + b'{"type":"Polygon","coordinates":[', hole, hole[:-1] + b"]}}"),
):
    path.write_bytes(before + each * (24 * 2**20 // len(each)) + after)
    try:
        read_geojson(path, table, (800, 800), 0)
        sys.exit("taken")
    except LayoutError:
        print(peak_rss() / 2**20)
"""


def test_refusing_takes_little_more_than_the_text(tmp_path):
    done = subprocess.run([sys.executable, "-c", REFUSED, tmp_path / "a.geojson"], capture_output=True, text=True, check=True)
    peaks = [float(line) for line in done.stdout.split()]
    assert len(peaks) == 3
    assert max(peaks) < 220, done.stdout  # of which the interpreter with shapely takes 60


def test_a_thousand_that_cannot_be_read_are_enough(tmp_path, table):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [0] * 5000}))
    with pytest.raises(LayoutError, match="and 999 more"):
        read_geojson(path, table, (800, 800), 0)


@pytest.mark.parametrize("rings", ["[[0,0],[400,0],[400,400]],%s", "%s"])
def test_an_empty_ring_may_be_long(tmp_path, table, rings):
    path = tmp_path / "a.geojson"
    coordinates = "[" + rings % ("[" + " " * 40 + "]") + "]"
    geometry = '{"type": "Polygon", "coordinates": ' + coordinates + "}"
    path.write_text('{"type": "Feature", "geometry": ' + geometry + ', "properties": {"classification": "Tumor"}}')
    if "400" in rings:  # it is a hole
        assert read_geojson(path, table, (800, 800), 0).class_map(Box(0, 0, 50, 50), 8).any()
    else:
        with pytest.raises(LayoutError, match="no polygons are left"):
            read_geojson(path, table, (800, 800), 0)
