"""What QuPath, its scripts and other programs export, beside annotations that all have a class."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest

from wsigen.base.errors import LayoutError
from wsigen.base.geometry import Box
from wsigen.layout.geojson import class_names, read_geojson
from wsigen.layout.read import read_layout

SIZE = (800, 800)


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def thing(rings, label="Tumor", kind="annotation", geometry="Polygon", **properties):
    properties = {"objectType": kind, **properties}
    if label:
        properties["classification"] = {"name": label, "color": [200, 0, 0]}
    return {"type": "Feature", "geometry": rings and {"type": geometry, "coordinates": rings}, "properties": properties}


GROUND, NEST = thing([square(0, 0, 800)], "Stroma"), thing([square(160, 160, 320)], "Tumor")
CELLS = [thing([square(20 * i, 640, 12)], None, "cell") | {"nucleusGeometry": {"type": "Polygon"}} for i in range(30)]


def areas(layout):
    cells = layout.class_map(Box(0, 0, layout.height // 8, layout.width // 8), 8)
    return {int(i): int(n) * 64 for i, n in zip(*np.unique(cells, return_counts=True), strict=True)}


BOTH = {2: 800**2 - 320**2, 1: 320**2}


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ([], None),
        (CELLS, "left out: 30 cells without a class"),
        ([thing([square(0, 0, 800)], None, name="ROI")], "left out: 1 annotation without a class"),
        ([thing([square(0, 0, 800)], "Region*")] * 2, "left out: 2 annotations of class 'Region*'"),
        ([thing(None)], "left out: 1 object without geometry"),
        ([thing([9, 9], geometry="Point")], "left out: 1 object without area (points or lines)"),
        ([thing([square(0, 0, 80)], None, "tmaCore")], "left out: 1 TMA core without a class"),
    ],
)
def test_what_is_no_layout_is_left_out_and_told(write, table, more, note):
    layout = read_geojson(write([GROUND, *more, NEST]), table, SIZE, 0)
    assert areas(layout) == BOTH
    assert layout.notes == ((f"a.geojson: {note}",) if note else ())


def test_another_plane_is_left_out_and_told(write, table):
    other = thing([square(0, 0, 704)])
    other["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    layout = read_geojson(write([GROUND, other, NEST]), table, SIZE, 0)
    assert areas(layout) == BOTH
    assert "drawn on 2 planes; z=0, t=0 with 2 of 3 objects is read" in layout.notes[0]
    assert areas(read_geojson(write([other]), table, SIZE, 0)) == {0: 800**2 - 704**2, 1: 704**2}


def test_what_is_left_out_decides_no_plane(write, table):
    cells = [thing([square(8 * i, 0, 8)], None, "detection") for i in range(9)]
    for cell in cells:
        cell["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    layout = read_geojson(write([GROUND, *cells, NEST]), table, SIZE, 0)
    assert areas(layout) == BOTH
    assert layout.notes == ("a.geojson: left out: 9 detections without a class",)


def test_objects_in_objects(write, table):
    parent = thing([square(0, 0, 800)], "Stroma", childObjects=[NEST])
    assert areas(read_geojson(write([parent]), table, SIZE, 0)) == BOTH


@pytest.mark.parametrize(
    "classification",
    [
        json.dumps({"name": "Tumor", "color": [1, 2, 3]}),
        {"name": "Positive", "parentClass": {"name": "Tumor", "colorRGB": 1}, "colorRGB": 2},
        {"names": ["Tumor", "Positive"], "color": [1, 2, 3]},
        {"name": "Tumor: Positive"},
        "Tumor",
    ],
)
def test_forms_of_a_classification(write, table, classification):
    nest = thing([square(160, 160, 320)])
    nest["properties"]["classification"] = classification
    assert areas(read_geojson(write([GROUND, nest]), table, SIZE, 0)) == BOTH


def zipped(*names, data=None, **kwargs):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(name, data or json.dumps([GROUND, NEST]))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", zipped("slide.geojson")),
        ("a.geojson.zip", zipped("__MACOSX/._a.geojson", "../../etc/a.geojson", "notes.txt")),
        ("a.dat", zipped("slide.json")),
        ("a.geojson.gz", gzip.compress(json.dumps([GROUND, NEST]).encode())),
        ("a.geojson", json.dumps([GROUND, NEST]).encode("utf-16")),
        ("a.dat", json.dumps([GROUND, NEST]).encode("utf-16")),
        ("a.geojson", b"\xef\xbb\xbf" + json.dumps([GROUND, NEST]).encode()),
    ],
)
def test_packed_and_encoded(tmp_path, table, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    assert areas(read_layout(path, table, SIZE, 0)) == BOTH
    assert list(tmp_path.rglob("*")) == [path]


def test_an_encoding_that_is_guessed_is_told(tmp_path, table):
    path = tmp_path / "a.geojson"
    odd = thing([square(160, 160, 320)], "Nécrose µ")
    path.write_bytes(json.dumps([GROUND, odd], ensure_ascii=False).encode("cp1252"))
    layout = read_geojson(path, table, SIZE, 0, names={"nécrose µ": "Tumor"})
    assert areas(layout) == BOTH
    assert "Windows-1252" in layout.notes[0]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (zipped("a.geojson", "b.geojson"), r"holds 2 GeoJSON files \(a.geojson, b.geojson\)"),
        (zipped("a.txt"), r"holds 0 GeoJSON files \(none\)"),
        (zipped(*(f"{i}.txt" for i in range(1001))), "a zip of more than 1,000 files"),
        (zipped("a.geojson", data=" " * 2**22), "too large"),
        (zipped("a.geojson")[:-30], "damaged"),
        (zipped("a.geojson")[:60] + b"????" + zipped("a.geojson")[64:], "damaged"),
    ],
)
def test_zips_that_are_refused(tmp_path, table, monkeypatch, data, match):
    monkeypatch.setattr("wsigen.layout.geojson_file.MAX_BYTES", 2**20)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(LayoutError, match=match):
        read_layout(tmp_path / "a.zip", table, SIZE, 0)


def test_measurements_may_be_no_numbers(write, table):
    nest = thing([square(160, 160, 320)], measurements={"Circularity": 1, "Area µm^2": 7})
    text = json.dumps([GROUND, nest]).replace("7", "NaN")
    assert areas(read_geojson(write(text), table, SIZE, 0)) == BOTH


def test_renamed_and_dropped(write, table):
    path = write([GROUND, thing([square(160, 160, 320)], "Nekrose: alt"), thing([square(0, 0, 90)], "Positive")])
    layout = read_layout(path, table, SIZE, 0, names={"Nekrose": "Tumor", "Positive": None, "Fett": None})
    assert areas(layout) == BOTH
    assert layout.unused_names == ("Fett",)
    assert class_names(path) == ["Stroma", "Nekrose: alt", "Positive"]


def test_all_that_is_wrong_is_told_at_once(write, table):
    bad = [
        *[thing([square(0, 0, 90)], "Positive")] * 3,
        thing([square(0, 0, 90)], "Tumour"),
        thing([square(900, 0, 90)]),
        thing([[["x", 1]] * 4]),
        thing([[[400, 10], [700, 790], [10, 300], [790, 300], [100, 790], [400, 10]]]),
    ]
    with pytest.raises(LayoutError) as caught:
        read_geojson(write([GROUND, *bad]), table, SIZE, 0)
    message = str(caught.value)
    assert message.count("a.geojson") == 1
    assert "4 problems:" in message
    parts = ("'Positive' (3 times), 'Tumour' (did you mean 'Tumor'?)", "'Positive=CLASS'", "out of range", "two ways", "a pair")
    assert all(part in message for part in parts), message
    assert len(caught.value.causes) == 4


def test_contours_that_touch_or_cross_by_a_pixel_are_mended_and_told(write, table):
    seam = [[160, 160], [480, 160], [480, 480], [320, 480], [320, 320], [320, 480], [160, 480], [160, 160]]
    loop = [[160, 160], [480, 160], [480, 480], [318, 480], [322, 483], [322, 479], [318, 482], [160, 480], [160, 160]]
    for ring, change in ((seam, "by 0 px²"), (loop, "px²")):
        layout = read_geojson(write([GROUND, thing([ring])]), table, SIZE, 0)
        assert areas(layout) == BOTH
        assert "1 contour that touches or crosses itself is mended; areas change" in layout.notes[0]
        assert change in layout.notes[0]


def test_a_bow_tie_is_both_of_its_halves(write, table):
    bow = [[100, 100], [700, 700], [700, 100], [100, 700], [100, 100]]
    layout = read_geojson(write([GROUND, thing([bow])]), table, SIZE, 0)
    assert areas(layout)[1] == pytest.approx(180_000, rel=0.02)
    assert "by 180000 px²" in layout.notes[0]


def test_a_few_px_outside_are_cut_off_and_told(write, table):
    ground = thing([[[-12, -7], [800, -7], [800, 800], [-12, 800], [-12, -7]]], "Stroma")
    for size in (SIZE, None):
        layout = read_geojson(write([ground, NEST]), table, size, 0)
        assert (layout.height, layout.width) == SIZE
        assert areas(layout) == BOTH
        note = "a.geojson: 1 polygon reaches up to 12 px beyond the slide's edge; what lies outside is cut off"
        assert layout.notes == (note,)


def test_parts_of_a_merged_annotation_count_for_themselves(write, table):
    islands = [[square(x, y, 40)] for x in range(0, 800, 80) for y in range(0, 800, 80)]
    merged = [GROUND, NEST, thing(islands, "Immune cells", geometry="MultiPolygon")]
    apart = [GROUND, NEST, *(thing(island, "Immune cells") for island in islands)]
    layouts = [read_geojson(write(drawn), table, SIZE, 0) for drawn in (merged, apart)]
    assert areas(layouts[0])[3] == 100 * 1600
    assert areas(layouts[0]) == areas(layouts[1])


def test_what_is_hidden_entirely_is_told(write, table):
    under = thing([square(200, 200, 100)], "Immune cells", name="lost")
    halves = [thing([[[200 + x, 200], [250 + x, 200], [250 + x, 300], [200 + x, 300], [200 + x, 200]]]) for x in (0, 50)]
    layout = read_geojson(write([GROUND, under, *halves]), table, SIZE, 0)
    assert "1 of Immune cells hidden entirely by smaller polygons" in layout.notes[0]
    assert "'lost'" in layout.notes[0]
    twice = read_geojson(write([GROUND, NEST, thing([square(160, 160, 320)], "Other")]), table, SIZE, 0)
    assert "1 of Tumor hidden entirely" in twice.notes[0]
    assert not read_geojson(write([GROUND, NEST, NEST]), table, SIZE, 0).notes
    assert not read_geojson(write([GROUND, under, halves[0]]), table, SIZE, 0).notes


def cell(x, y, label, side=64, inner=24, **more):
    inset = (side - inner) // 2
    nucleus = {"type": "Polygon", "coordinates": [square(x + inset, y + inset, inner)]}
    return thing([square(x, y, side)], label, "cell") | {"nucleusGeometry": nucleus} | more


def full_areas(layout):
    classes = layout.class_map(Box(0, 0, layout.height, layout.width), 1)
    return {int(i): int(n) for i, n in zip(*np.unique(classes, return_counts=True), strict=True)}


WITH_NUCLEI = [GROUND, cell(8, 8, "Tumor"), cell(104, 8, None), cell(200, 8, "Ignore*"), cell(304, 8, "Positive")]
WITHOUT_ONE = {"Positive": None}


def test_nuclei_are_a_class_of_their_own_on_top_of_all(write, table):
    small = [thing([square(x, x, 8)], "Stroma") for x in (10, 36)]  # on the cell, and on its nucleus
    layout = read_geojson(write([*WITH_NUCLEI, *small]), table, SIZE, 0, names=WITHOUT_ONE, nuclei="immune cells")
    nuclei, rest = 2 * 24**2, 64**2 - 24**2 - 8**2
    assert full_areas(layout) == {1: rest, 2: 800**2 - nuclei - rest, 3: nuclei}
    classes = layout.class_map(Box(0, 0, 800, 800), 1)
    assert (classes[28:52, 28:52] == 3).all()
    assert (classes[28:52, 124:148] == 3).all()


def test_nuclei_alone_are_a_layout(write, table):
    path = write([cell(100 * i, 100 * i, None, 80, 40) for i in range(8)])
    layout = read_geojson(path, table, SIZE, 2, nuclei="Tumor")
    assert full_areas(layout) == {1: 8 * 40**2, 2: 800**2 - 8 * 40**2}
    with pytest.raises(LayoutError, match="no class is set, on any of 8 objects"):
        read_geojson(path, table, SIZE, 2)


@pytest.mark.parametrize("geometry", [None, {"type": "Polygon", "coordinates": [[]]}])
def test_nuclei_of_cells_without_an_outline_are_all_drawn(write, table, geometry):
    path = write([GROUND, *(cell(100 * i, 8, "Tumor", geometry=geometry) for i in range(4))])
    layout = read_geojson(path, table, SIZE, 0, nuclei="Other")
    nucleus = table.index("Other")
    assert full_areas(layout) == {table.index("Stroma"): 800**2 - 4 * 24**2, nucleus: 4 * 24**2}
    classes = layout.class_map(Box(0, 0, 800, 800), 1)
    assert all((classes[28:52, 100 * i + 20 : 100 * i + 44] == nucleus).all() for i in range(4))
    assert not layout.notes
    assert "left out: 4 objects without geometry" in " ".join(read_geojson(path, table, SIZE, 0).notes)


def test_nuclei_that_are_left_out_are_told_once(write, table):
    layout = read_geojson(write(WITH_NUCLEI), table, SIZE, 0, names=WITHOUT_ONE)
    assert full_areas(layout) == {1: 64**2, 2: 800**2 - 64**2}
    assert "a.geojson: 4 nuclei of cells are left out; the setting 'nuclei' gives them a class of their own" in layout.notes


def test_a_nucleus_that_is_no_outline(write, table):
    bad = cell(8, 8, "Tumor", nucleusGeometry={"type": "Polygon"})
    with pytest.raises(LayoutError, match=r"the nucleus of feature 2 .* has no coordinates"):
        read_geojson(write([GROUND, bad]), table, SIZE, 0, nuclei="Other")
    far = cell(8, 8, "Tumor", nucleusGeometry={"type": "Polygon", "coordinates": [square(5000, 0, 30)]})
    with pytest.raises(LayoutError, match=r"nucleus.*out of range"):
        read_geojson(write([GROUND, far]), table, SIZE, 0, nuclei="Other")


def test_nuclei_of_label_images_are_refused(tmp_path, table):
    (tmp_path / "l.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(LayoutError, match="no cells with nuclei"):
        read_layout(tmp_path / "l.png", table, SIZE, 0, nuclei="Other")
