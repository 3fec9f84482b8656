"""Labels of images: tables that speak of other images, glass by tissue, renamed annotations."""

import json
import os

import numpy as np
import pytest
from dataset.dataset_making import CLASSES, annotated, settings, slide, spots
from drawing import feature, square, write_layout
from PIL import Image

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError
from wsigen.base.geometry import Box
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.summary import summarise

ANNOTATED = {"kind": "annotated", "images": "slides", "mpp": 0.5}
PLAIN = {"kind": "unlabelled", "images": "plain", "mpp": 0.5}
POINTS = {"kind": "points", "images": "a.png", "mpp": 0.5, "csv": "s.csv", "unit": "px", "radius_px": 60}
WHOLE = Box(0, 0, 640, 768)
BOTH = [("a", 200, 200, "Tumor"), ("a", 400, 300, "Stroma")]


def test_rows_about_unknown_images_are_counted_and_named(tmp_path):
    slide(tmp_path / "a.png")
    slide(tmp_path / "plain" / "u1.png")
    strangers = [(name, 1, 1, "Tumor") for name in ("b", "c", "b", "d", "e")]
    spots(tmp_path / "s.csv", [*BOTH, *strangers, ("u1", 1, 1, "Tumor")])
    dataset = open_dataset(settings(tmp_path.resolve(), POINTS, PLAIN), tmp_path / "cache")
    (note,) = dataset.notes
    assert note.endswith("s.csv: 5 rows speak of 4 images its source does not have ('b', 'c', 'd', ...); they are left out")
    assert json.loads(json.dumps(summarise(dataset)))["notes"] == [note]
    spots(tmp_path / "s.csv", BOTH)
    assert open_dataset(settings(tmp_path.resolve(), POINTS, PLAIN), tmp_path / "cache").notes == []


def test_rows_that_are_all_unknown_or_left_out_are_refused(tmp_path):
    slide(tmp_path / "a.png")
    spots(tmp_path / "s.csv", [("b", 1, 1, "Tumor")])
    with pytest.raises(DatasetError, match="no row speaks of an image of its source"):
        open_dataset(settings(tmp_path.resolve(), POINTS), tmp_path / "cache")
    spots(tmp_path / "s.csv", BOTH)
    with pytest.raises(DatasetError, match="no label is left of all 2 rows of its source"):
        open_dataset(settings(tmp_path.resolve(), POINTS | {"names": {"Tumor": None, "Stroma": None}}), tmp_path / "cache")


@pytest.mark.parametrize("kind", ["annotated", "points", "unlabelled"])
def test_glass_is_labelled_where_the_source_says_so(tmp_path, kind):
    annotated(tmp_path / "slides")
    slide(tmp_path / "plain" / "u1.png", seed=5)
    slide(tmp_path / "a.png", seed=6)
    spots(tmp_path / "s.csv", BOTH)
    sources = [dict(ANNOTATED), dict(POINTS), dict(PLAIN)]
    kinds = {"slides/s1.png": "annotated", "a.png": "points", "plain/u1.png": "unlabelled"}
    (mine,) = (s for s in sources if s["kind"] == kind)
    mine["glass"] = True
    dataset = open_dataset(settings(tmp_path.resolve(), *sources, classes=CLASSES), tmp_path / "cache")
    for member in dataset.members:
        found, tissue = member.class_map(WHOLE, 0.5), member.tissue(WHOLE, 0.5)
        labels = member.layout(0.5).class_map(Box(0, 0, 80, 96), 8)
        assert 0.4 < tissue.mean() < 0.8
        expected = np.where((labels == UNKNOWN) & ~tissue, 0, labels) if kinds[member.name] == kind else labels
        assert np.array_equal(found, expected)
        part = Box(0, 0, 128, 256)
        assert np.array_equal(member.class_map(part, 0.5), expected[:16, :32])
        assert member.labelled == (kinds[member.name] != "unlabelled" or kind == "unlabelled")


def test_glass_needs_a_class_and_no_other_background(tmp_path):
    with pytest.raises(ValueError, match="source 0 has 'glass: true', but no class says 'background: true'"):
        settings(tmp_path, PLAIN | {"glass": True})
    with pytest.raises(ValueError, match="give one"):
        settings(tmp_path, ANNOTATED | {"glass": True, "background": "Glass"}, classes=CLASSES)


def test_annotations_are_renamed_or_left_out(tmp_path):
    annotated(tmp_path / "slides")
    drawn = [
        feature("Invasive: Positive", square(100, 100, 200)),
        feature("Stroma", square(360, 200, 240)),
        feature("Region*", square(20, 20, 600)),
        feature("Artefact", square(380, 220, 100)),
    ]
    write_layout(tmp_path / "slides" / "s1.geojson", *drawn)
    names = {"Invasive": "Tumor", "Region*": None, "Artefact": None}
    (member,) = open_dataset(settings(tmp_path.resolve(), ANNOTATED | {"names": names}), tmp_path / "cache").members
    found = member.class_map(WHOLE, 0.5)
    write_layout(
        tmp_path / "slides" / "s1.geojson", feature("Tumor", square(100, 100, 200)), feature("Stroma", square(360, 200, 240))
    )
    (plain,) = open_dataset(settings(tmp_path.resolve(), ANNOTATED), tmp_path / "cache").members
    assert np.array_equal(found, plain.class_map(WHOLE, 0.5))
    assert set(np.unique(found)) == {0, 1, UNKNOWN}


def test_names_that_lead_nowhere(tmp_path):
    annotated(tmp_path / "slides")
    with pytest.raises(ValueError, match=r"unknown class 'Tumour' \(did you mean 'Tumor'\?\)"):
        settings(tmp_path, ANNOTATED | {"names": {"Tumor": "Tumour"}})
    config = settings(tmp_path.resolve(), ANNOTATED | {"names": {"Tumor": None, "Stroma": None}})
    with pytest.raises(DatasetError, match=r"s1.geojson: 'names' leaves out every annotation of a class \(2\)"):
        open_dataset(config, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["annotated", "masks"])
def test_labels_that_change_while_a_dataset_is_open_are_refused(tmp_path, kind):
    """A training reads them for hours, under the key of what was opened."""
    annotated(tmp_path / "slides")
    file, source = tmp_path / "slides" / "s1.geojson", ANNOTATED
    if kind == "masks":
        file, values = tmp_path / "labels" / "s1.png", {0: None, 1: "Tumor", 2: "Stroma"}
        source = {"kind": "masks", "images": "slides/*.png", "mpp": 0.5, "masks": "labels", "values": values}
        file.parent.mkdir()
        Image.fromarray(np.kron([[0, 1], [2, 0]], np.ones((320, 384))).astype(np.uint8)).save(file)
    config = settings(tmp_path.resolve(), source)
    dataset = open_dataset(config, tmp_path / "cache")
    stream, before = dataset.crops("training", 64, 0), dataset.members[0].class_map(WHOLE, 0.5)
    stream.batch(0, 2)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    with pytest.raises(DatasetError, match=rf"{file.name}: changed since it was opened.*start again$") as caught:
        stream.batch(1, 2)
    assert "\n" not in str(caught.value)
    again = open_dataset(config, tmp_path / "cache")
    assert again.key != dataset.key
    assert np.array_equal(again.members[0].class_map(WHOLE, 0.5), before)
    file.unlink()
    with pytest.raises(DatasetError, match=rf"{file.name}: these labels cannot be read \(No such file.*start again$"):
        again.crops("training", 64, 0).batch(0, 2)
