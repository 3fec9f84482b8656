import json

import tifffile
from ome_types import from_xml
from runs import interrupt_in_the_middle, settings_of

import wsigen.slide.ome_rois
from wsigen.run.generate import generate
from wsigen.run.spec import RunSpec
from wsigen.storage.local import LocalFolder


def test_annotations_are_in_the_slide_too_and_pixels_are_the_same(bundle, tmp_path, monkeypatch):
    settings = settings_of(bundle, tmp_path, steps=1, keep_run=False)
    without = generate(tmp_path / "a.ome.tiff", **settings)
    made = generate(tmp_path / "b.ome.tiff", **settings, rois=True)
    assert made.level0_sha256 == without.level0_sha256
    features = json.loads(made.annotations.read_text())["features"]
    with tifffile.TiffFile(made.slide) as tif:
        ome = from_xml(tif.ome_metadata, validate=True)
    assert [roi.name for roi in ome.rois] == [feature["properties"]["name"] for feature in features]
    monkeypatch.setattr(wsigen.slide.ome_rois, "MOST_CORNERS", 3)
    notes = []
    generate(tmp_path / "c.ome.tiff", **settings, rois=True, watch=lambda stage: notes.append(stage.note))
    assert any(note and "too many for OME-XML; c.geojson" in note for note in notes)
    with tifffile.TiffFile(tmp_path / "c.ome.tiff") as tif:
        assert "<ROI" not in tif.ome_metadata


def test_annotations_asked_for_when_a_run_goes_on_are_written(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, steps=1)
    interrupt_in_the_middle(tmp_path / "a.ome.tiff", settings, after=2)
    made = generate(tmp_path / "a.ome.tiff", **settings, rois=True, drawn=True)
    with tifffile.TiffFile(made.slide) as tif:
        assert "<ROI" in tif.ome_metadata
    kept = RunSpec.load(LocalFolder(tmp_path / "a.run")).settings
    assert (kept.rois, kept.drawn) == (True, True)
    assert (tmp_path / "a.drawn.geojson").exists()
