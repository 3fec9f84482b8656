from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_making import exact_mean, make_slide, tissue

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import OutputError
from wsigen.slide.class_picture import OVERLAY, class_picture, sampled_classes
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.sidecars import import_script, write_annotations, write_manifest, write_overlay, write_thumbnail


def test_thumbnail_is_the_whole_slide(tmp_path: Path) -> None:
    rgb = tissue(1500, 2400)
    slide = make_slide(tmp_path, PyramidSpec(2400, 1500, 0.5, 20), rgb)
    write_thumbnail(slide, tmp_path / "x.png", side=300)
    thumbnail = Image.open(tmp_path / "x.png")
    assert (thumbnail.format, thumbnail.size) == ("PNG", (300, 188))
    inner = np.asarray(thumbnail)[:186].astype(float)
    assert np.abs(inner - exact_mean(rgb, 8)[:186]).mean() < 6
    write_thumbnail(slide, tmp_path / "large.png", side=5000)
    assert Image.open(tmp_path / "large.png").size == (2400, 1500)
    with pytest.raises(OutputError, match="PNG or JPEG"):
        write_thumbnail(slide, tmp_path / "x.tif")
    assert not (tmp_path / "x.tif").exists()


@pytest.mark.parametrize("quality", [1, 90])
def test_a_jpeg_is_smaller_than_the_slide(tmp_path: Path, quality: int) -> None:
    slide = make_slide(tmp_path, PyramidSpec(600, 512, 0.5, 20, quality=quality), tissue(512, 600))
    write_thumbnail(slide, tmp_path / "x.jpg")
    assert (tmp_path / "x.jpg").stat().st_size < slide.stat().st_size
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.width / picture.height == pytest.approx(600 / 512, rel=0.05)


GLASS = TissueClass("Glass", (255, 255, 255), background=True)
TABLE = ClassTable((GLASS, TissueClass("Tumor", (200, 0, 0)), TissueClass("Stroma", (0, 160, 60))))


def test_classes_and_their_legend_over_the_picture(tmp_path: Path) -> None:
    classes = np.full((64, 75), 1, np.uint8)
    classes[:, 40:] = 2
    classes[:8] = 0
    classes[-8:] = UNKNOWN
    slide = make_slide(tmp_path, PyramidSpec(600, 512, 0.5, 20), np.full((512, 600, 3), 120, np.uint8))
    write_thumbnail(slide, tmp_path / "x.png")
    area = write_annotations(
        tmp_path / "x.geojson", lambda box: classes[box.slices], classes.shape, 8, (512, 600), TABLE, 0, 0.5
    )
    write_overlay(tmp_path / "x.png", tmp_path / "o.png", lambda box: classes[box.slices], 8, (512, 600), TABLE, area)
    drawn = np.asarray(Image.open(tmp_path / "o.png")).astype(int)
    plain = np.asarray(Image.open(tmp_path / "x.png")).astype(int)[:512]
    assert drawn.shape[0] > 512
    assert drawn.shape[1] == 600
    assert np.abs(drawn[:64] - plain[:64]).max() == 0
    assert np.abs(drawn[448:512] - plain[448:512]).max() == 0
    for place, colour in (((256, 100), (200, 0, 0)), ((256, 500), (0, 160, 60))):
        expected = (1 - OVERLAY) * plain[place] + OVERLAY * np.array(colour)
        assert np.abs(drawn[place] - expected).max() <= 2
    legend = drawn[512:].reshape(-1, 3)
    for colour in ((200, 0, 0), (0, 160, 60)):
        assert (legend == colour).all(axis=1).sum() > 100


def test_a_class_map_in_bands_is_that_of_its_polygons(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = np.kron(rng.integers(0, 3, (22, 4)), np.ones((50, 50), int)).astype(np.uint8)  # more than two bands
    size = (1100 * 8, 200 * 8)
    write_annotations(tmp_path / "x.geojson", lambda box: classes[box.slices], classes.shape, 8, size, TABLE, 0, 0.5)
    features = json.loads((tmp_path / "x.geojson").read_text(encoding="utf-8"))["features"]
    sampled = sampled_classes(lambda box: classes[box.slices], 8, size, (550, 100))
    colours = np.array([(0, 0, 0, 0), (200, 0, 0, 255), (0, 160, 60, 255)], np.uint8)
    assert (colours[sampled] == class_picture(features, size, (550, 100))).all()


def test_manifest_is_sorted_json(tmp_path: Path) -> None:
    write_manifest(tmp_path / "x.json", {"seed": 1, "areas": {"Tumor": 2.5, "Nécrose": 1}})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"areas": {"Nécrose": 1, "Tumor": 2.5}, "seed": 1}
    assert text.startswith('{\n  "areas": {\n    "Nécrose": 1')
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path / "x.json", {"loss": float("nan")})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == text


def test_import_script_is_for_qupath() -> None:
    script = import_script()
    for part in (
        "BRIGHTFIELD_H_E",
        "PathIO.readObjects",
        "'.geojson'",
        r"(\.ome\.tiff?|\.[^.]+)$",
        "no annotations",
    ):
        assert part in script
    assert all(script.count(a) == script.count(b) for a, b in ("()", "{}", "[]"))
