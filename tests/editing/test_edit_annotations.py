"""Annotations of edited slides: what no region touches stays whole; strangers' files are refused before anything is made."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest
from editing_making import drawing

from wsigen.base.errors import LayoutError
from wsigen.editing.annotations import edited_annotations, features_of
from wsigen.editing.edit import _kept_beside, _rois, edit
from wsigen.slide.class_picture import GREY, class_of


def feature(x, y, side, name="Stroma", color=(0, 90, 0), **properties):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    classed = {"classification": {"name": name, "color": list(color)}, "measurements": {"Area µm^2": 12.5}}
    return {
        "type": "Feature",
        "id": f"{x}-{y}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", **classed, **properties},
    }


def collection(path, features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def slide(parent, tmp_path):
    return shutil.copy(parent, tmp_path / "slide.ome.tiff")


def test_annotations_that_no_region_touches_stay_whole_through_a_chain(slide, settings, tmp_path):
    far = feature(40, 40, 300, extra={"of": ["others", 1]})
    collection(tmp_path / "slide.geojson", [far, feature(880, 680, 100)])
    one = edit(slide, tmp_path / "one.ome.tiff", **{**settings, "steps": 1})
    kept, cut, new = json.loads(one.annotations.read_text())["features"]
    assert kept == far
    assert "measurements" not in cut["properties"]  # they were those of the whole area
    assert new["properties"]["classification"]["name"] == "Tumor"
    regions = drawing(tmp_path / "drawn.geojson", (600, 300, 100, 100, "Stroma"))
    two = edit(one.slide, tmp_path / "two.ome.tiff", **{**settings, "steps": 1, "regions": regions})
    features = json.loads(two.annotations.read_text())["features"]
    assert features[:3] == [kept, cut, new]
    assert len(features) == 4


def test_a_file_of_megabytes_stays_whole(bundle, tmp_path):
    from wsigen.models.bundle import check_bundle

    features = [feature(x * 10, y * 10, 8) for x in range(60) for y in range(100)]
    path = collection(tmp_path / "many.geojson", features)
    assert path.stat().st_size > 2**20
    made = edited_annotations(path, [], check_bundle(bundle).table, 0)
    assert json.loads(made.text)["features"] == features
    assert made.area_px["Stroma"] == 64 * 6000


@pytest.mark.parametrize("content", [feature(1, 1, 5), [feature(1, 1, 5)], feature(1, 1, 5)["geometry"]])
def test_a_list_a_feature_or_a_geometry_are_features_too(content, tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(content))
    (found,) = features_of(path)
    assert found["geometry"] == feature(1, 1, 5)["geometry"]


@pytest.mark.parametrize("color", [-65536, "#ff0000", ["a", "b", "c"], [255], {"r": 1}, [1.5, 2, 3], [True, 1, 1]])
def test_a_colour_that_is_none_is_grey(color):
    assert class_of({"properties": {"classification": {"name": "Tumor", "color": color}}}) == ("Tumor", GREY)


def test_the_class_of_a_stranger_may_be_a_word_or_nothing():
    assert class_of({"properties": {"classification": "Tumor"}}) == ("Tumor", GREY)
    assert class_of({"properties": {"classification": 7}}) == class_of({}) == ("Unclassified", GREY)
    assert class_of({"properties": {"classification": {"name": "A", "color": [255, 0, 300]}}}) == ("A", (255, 0, 44))


def test_a_slide_with_annotations_of_strangers_is_edited(slide, settings, tmp_path):
    odd = [feature(40 + 60 * n, 40, 50) for n in range(3)]
    odd[0]["properties"]["classification"] = {"name": "Tumor", "color": -65536}
    odd[1]["properties"]["classification"] = "Tumor"
    odd[2]["properties"]["classification"]["color"] = "#ff0000"
    collection(tmp_path / "slide.geojson", odd)
    made = edit(slide, tmp_path / "one.ome.tiff", **{**settings, "steps": 1})
    assert json.loads(made.annotations.read_text())["features"][:3] == odd
    assert json.loads(made.manifest.read_text())["area_px"]["Tumor"] == pytest.approx(160 * 120 + 2 * 2500)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b'{"features": [7]}', b'{"a": 1}', b"[[1, 2]]", b"[" * 5000, b"{}"])
def test_what_are_no_annotations_is_refused_before_anything_is_made(slide, settings, tmp_path, data):
    path = tmp_path / "labels.png"
    path.write_bytes(data)
    with pytest.raises(LayoutError) as refused:
        edit(slide, tmp_path / "one.ome.tiff", annotations=path, **settings)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "one.edit").exists()


def test_annotations_in_the_slide_alone_stay_and_that_is_told():
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><ROI ID="ROI:wsigen-0"/></OME>'
    rois, (note,) = _rois(text, None)
    assert rois is None
    assert "stay as they were" in note
    assert _rois(text, [feature(1, 1, 5)])[0][0].class_name == "Stroma"
    assert _rois(text.replace("wsigen-", ""), [feature(1, 1, 5)]) == (None, ())


def test_undo_gives_packed_annotations_back_and_not_those_of_another_file(tmp_path):
    collection(tmp_path / "slide.geojson", [feature(1, 1, 5)])
    given = tmp_path / "given.geojson.gz"
    given.write_bytes(gzip.compress(json.dumps([feature(7, 7, 5)]).encode()))
    kept = _kept_beside(tmp_path / "slide.ome.tiff", given, tmp_path)
    assert json.loads(kept[".geojson"].read_text()) == [feature(7, 7, 5)]
    assert _kept_beside(tmp_path / "slide.ome.tiff", None, tmp_path) == {".geojson": tmp_path / "slide.geojson"}
