"""Annotations in the OME-XML: the same areas as beside the slide, by the schema, and not too many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ome_types import from_xml
from shapely import union_all
from shapely.geometry import Polygon

import wsigen.slide.ome_rois
from wsigen.base.classes import ClassTable, TissueClass
from wsigen.slide.ome import ome_xml
from wsigen.slide.ome_rois import Roi, TooManyRoisError, read_rois
from wsigen.slide.ome_rois import rois_of as features_as_rois
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.sidecars import write_annotations

TABLE = ClassTable(
    (
        TissueClass(name="Glass", color=(240, 240, 240), background=True),
        TissueClass(name="Tumor", color=(200, 0, 10)),
        TissueClass(name="Stroma & <more>", color=(90, 150, 90)),
    )
)
SPEC = PyramidSpec(800, 640, 0.5, 20)


def rois_of(folder: Path, cells: NDArray[np.uint8]) -> tuple[Roi, ...]:
    path = folder / "x.geojson"
    write_annotations(path, lambda box: cells[box.slices], cells.shape, 8, (SPEC.height, SPEC.width), TABLE, 0, 0.5)
    return read_rois(path)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(1, 16))
def test_the_pieces_have_no_holes_and_are_the_class_map(tmp_path: Path, seed: int, grain: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 3, (80 // grain + 1, 100 // grain + 1), np.uint8)
    cells = np.ascontiguousarray(coarse.repeat(grain, 0).repeat(grain, 1)[:80, :100])
    rois = rois_of(tmp_path, cells)
    for index, tissue in enumerate(TABLE):
        pieces = [Polygon(ring) for roi in rois if roi.class_name == tissue.name for ring in roi.outlines]
        assert all(piece.is_valid and piece.area for piece in pieces)
        expected = 0 if tissue.background else 64 * int((cells == index).sum())
        assert sum(piece.area for piece in pieces) == union_all(pieces).area == expected


def test_the_schema_holds_and_the_image_refers_to_each(tmp_path: Path) -> None:
    cells = np.zeros((80, 100), np.uint8)
    cells[10:60, 10:60] = 1
    cells[20:30, 20:30] = cells[40:50, 40:50] = 2
    rois = rois_of(tmp_path, cells)
    ome = from_xml(ome_xml(SPEC, "x", {}, rois), validate=True)
    assert [roi.name for roi in ome.rois] == [roi.name for roi in rois]
    assert [ref.id for ref in ome.images[0].roi_refs] == [roi.id for roi in ome.rois]
    nest = next(roi for roi in ome.rois if roi.name.startswith("Stroma"))
    (shape,) = nest.union
    assert (shape.text, shape.locked) == ("Stroma & <more>", True)
    assert shape.stroke_color.as_rgb_tuple() == (90, 150, 90)
    assert {tuple(map(float, point.split(","))) for point in shape.points.split()} in (
        {(160, 160), (240, 160), (240, 240), (160, 240)},
        {(320, 320), (400, 320), (400, 400), (320, 400)},
    )


def test_too_many_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsigen.slide.ome_rois, "MOST_CORNERS", 20)
    cells = np.zeros((80, 100), np.uint8)
    cells[::4, ::4] = 1
    with pytest.raises(TooManyRoisError):
        rois_of(tmp_path, cells)


def test_an_outline_that_crosses_itself_and_has_holes_is_mended() -> None:
    bow = [[0, 0, 5], [100, 100, 5], [100, 0, 5], [0, 100, 5], [0, 0, 5]]  # with a third number, as some programs write them
    hole = [[80, 40, 5], [90, 40, 5], [90, 60, 5], [80, 60, 5], [80, 40, 5]]
    (roi,) = features_as_rois([{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [bow, hole]}}])
    assert sum(Polygon(outline).area for outline in roi.outlines) == pytest.approx(2 * 2500 - 200)
    assert all(Polygon(outline).is_valid for outline in roi.outlines)
