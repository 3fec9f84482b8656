from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import Point, shape
from slide_making import smooth_field

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import LayoutError
from wsigen.base.geometry import Box
from wsigen.slide.sidecars import write_annotations
from wsigen.storage.files import target_of_leftover

TABLE = ClassTable(
    (
        TissueClass("Tumor", (200, 0, 0)),
        TissueClass("Glass", (255, 255, 255), background=True),
        TissueClass("Stroma", (150, 200, 150)),
        TissueClass("Hole", (0, 0, 0), background=True),
        TissueClass("Nécrose", (50, 50, 50)),
    )
)


def export(
    path: Path,
    cells: NDArray[np.uint8],
    cell_px: int = 8,
    size_px: tuple[int, int] | None = None,
    seed: int = 1,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    size = size_px or (cells.shape[0] * cell_px, cells.shape[1] * cell_px)
    areas = write_annotations(path, lambda box: cells[box.slices], cells.shape, cell_px, size, TABLE, seed, mpp=0.5)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    return areas, document["features"]


def expected_areas(cells: NDArray[np.uint8], cell_px: int, size_px: tuple[int, int]) -> dict[str, float]:
    pixels = cells.repeat(cell_px, 0).repeat(cell_px, 1)[: size_px[0], : size_px[1]]
    return {t.name: float((pixels == i).sum()) for i, t in enumerate(TABLE) if not t.background}


def check_features(features: list[dict[str, Any]], areas: dict[str, float]) -> None:
    """What QuPath needs, and that the polygons are the areas."""
    colors = {t.name: list(t.color) for t in TABLE}
    found = dict.fromkeys(areas, 0.0)
    for feature in features:
        properties, polygon = feature["properties"], shape(feature["geometry"])
        name = properties["classification"]["name"]
        assert feature["geometry"]["type"] == "Polygon"
        assert all(ring[0] == ring[-1] for ring in feature["geometry"]["coordinates"])
        assert polygon.is_valid
        assert properties["objectType"] == "annotation"
        assert properties["classification"]["color"] == colors[name]
        assert properties["measurements"]["Area µm^2"] == pytest.approx(polygon.area * 0.25)
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        found[name] += polygon.area
    assert found == areas
    assert len({feature["id"] for feature in features}) == len(features)


@given(data=st.data(), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_areas_are_those_of_the_class_map(tmp_path_factory, data, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
    values = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, UNKNOWN]), min_size=81, max_size=81))
    cells = np.array(values, np.uint8).reshape(9, 9)[:height, :width]
    size = (height * 8 - data.draw(st.integers(0, 7)), width * 8 - data.draw(st.integers(0, 7)))
    areas, features = export(tmp_path_factory.getbasetemp() / "a.geojson", cells, 8, size)
    assert areas == expected_areas(cells, 8, size)
    check_features(features, areas)


def test_a_large_map_is_read_in_bands_and_joined(tmp_path: Path) -> None:
    field = smooth_field(1300, 700, 40, 3)
    cells = np.digitize(field, [-1.0, -0.3, 0.4, 1.2]).astype(np.uint8)
    boxes: list[Box] = []

    def rows(box: Box) -> NDArray[np.uint8]:
        boxes.append(box)
        return cells[box.slices]

    path = tmp_path / "a.geojson"
    areas = write_annotations(path, rows, cells.shape, 8, (10_400, 5600), TABLE, 1, mpp=0.5)
    assert [(b.y0, b.y1) for b in boxes] == [(0, 512), (512, 1024), (1024, 1300)]
    assert areas == expected_areas(cells, 8, (10_400, 5600))
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    check_features(features, areas)
    tall = [shape(f["geometry"]).bounds for f in features]
    assert any(y0 < 512 * 8 < y1 for _, y0, _, y1 in tall)


def test_holes_parts_and_corners(tmp_path: Path) -> None:
    cells = np.full((6, 10), 1, np.uint8)
    cells[0:5, 0:5] = 0
    cells[1:4, 1:4] = 2  # stroma inside tumour
    cells[2, 2] = UNKNOWN  # a hole in the hole
    cells[5, 5] = 0  # touches the tumour at a corner only
    cells[0, 9] = 0
    areas, features = export(tmp_path / "a.geojson", cells)
    assert areas == {"Tumor": (25 - 9 + 2) * 64.0, "Stroma": 8 * 64.0, "Nécrose": 0.0}
    check_features(features, areas)
    by_class = [f["properties"]["classification"]["name"] for f in features]
    assert sorted(by_class) == ["Stroma", "Tumor", "Tumor", "Tumor"]
    tumor = max((shape(f["geometry"]) for f in features), key=lambda p: p.area)
    assert tumor.contains(Point(4, 4))
    assert not tumor.contains(Point(20, 20))


def test_cells_outside_the_slide_are_not_drawn(tmp_path: Path) -> None:
    areas, features = export(tmp_path / "a.geojson", np.zeros((64, 64), np.uint8), 8, (101, 57))
    assert areas["Tumor"] == 101 * 57
    assert shape(features[0]["geometry"]).bounds == (0, 0, 57, 101)


def test_ids_repeat_for_one_seed_and_differ_between_seeds(tmp_path: Path) -> None:
    cells = (np.indices((8, 8)).sum(0) % 5).astype(np.uint8)
    one, two, three = (tmp_path / name for name in "abc")
    _, first = export(one, cells, seed=1)
    export(two, cells, seed=1)
    _, other = export(three, cells, seed=2)
    assert one.read_bytes() == two.read_bytes()
    assert not {f["id"] for f in first} & {f["id"] for f in other}


def test_bare_glass_is_an_empty_collection(tmp_path: Path) -> None:
    areas, features = export(tmp_path / "a.geojson", np.ones((4, 4), np.uint8))
    assert features == []
    assert set(areas.values()) == {0.0}


def test_a_wrong_map_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("old")
    with pytest.raises(LayoutError, match="got class 5; known are 0 to 4"):
        export(path, np.full((4, 4), 5, np.uint8))
    with pytest.raises(LayoutError, match="does not cover"):
        export(path, np.zeros((4, 4), np.uint8), 8, (33, 32))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_leaves_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes the file again sweeps leftovers of its name; in a folder of temporary files nobody would."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path, seen = tmp_path / "out" / "a.geojson", set()

    def rows(box: Box) -> NDArray[np.uint8]:
        assert not list((tmp_path / "temporary").iterdir())
        seen.update(target_of_leftover(p.name) for p in path.parent.iterdir())
        if box.y0:
            raise LayoutError("stopped")
        return np.zeros(box.shape, np.uint8)

    with pytest.raises(LayoutError, match="stopped"):
        write_annotations(path, rows, (1024, 64), 8, (8192, 512), TABLE, 1, mpp=0.5)
    assert seen == {path.name}
    assert not list(path.parent.iterdir())
