"""The file of the drawn polygons holds what the class map was made from, and nothing else."""

import json
import uuid

import numpy as np
import pytest
from drawing import feature, square

from wsigen.base.geometry import Box
from wsigen.layout.drawn import write_drawn
from wsigen.layout.geojson import read_geojson

SIZE = (800, 800)


def on_plane(z, item):
    return {**item, "geometry": {**item["geometry"], "plane": {"z": z, "t": 0, "c": -1}}}


def cell(name, x):
    return {**feature(name, square(x, 600, 100)), "nucleusGeometry": feature("", square(x + 40, 640, 24))["geometry"]}


@pytest.fixture
def drawing(write):
    seam = [[400, 160], [480, 160], [480, 480], [440, 480], [440, 320], [440, 480], [400, 480]]
    flat = [[10, 10], [500, 500], [250, 250]]
    return write(
        [
            feature("Stroma", square(0, 0, 700)),
            on_plane(3, feature("Tumor", square(100, 100, 200))),
            feature("Tumor", seam),
            feature("Other", flat),
            cell("Immune cells", 100),
            cell("Region*", 300),
        ]
    )


@pytest.mark.parametrize("nuclei", [None, "Other"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_what_was_drawn_gives_the_same_class_map_again(drawing, table, tmp_path, nuclei, scale):
    size = tuple(round(side * scale) for side in SIZE)
    read = read_geojson(drawing, table, size, 0, scale, nuclei=nuclei)
    count = write_drawn(drawing, tmp_path / "d.geojson", table, scale, nuclei=nuclei)
    again = read_geojson(tmp_path / "d.geojson", table, size, 0)
    box = Box(0, 0, size[0] // 8, size[1] // 8)
    np.testing.assert_array_equal(read.class_map(box, 8), again.class_map(box, 8))
    assert not again.notes
    made = json.loads((tmp_path / "d.geojson").read_text())["features"]
    assert count == len(made) == (4 if nuclei else 3)
    assert len({uuid.UUID(f["id"]) for f in made}) == count


def test_of_a_part_what_lies_on_it_is_written_from_its_corner(drawing, table, tmp_path):
    part = Box(590, 90, 790, 390)
    assert write_drawn(drawing, tmp_path / "d.geojson", table, nuclei="Other", part=part) == 3
    made = json.loads((tmp_path / "d.geojson").read_text())["features"]
    assert [f["geometry"]["coordinates"][0][0] for f in made] == [[-90, -590], [10, 10], [50, 50]]
    assert [f["properties"]["classification"]["name"] for f in made] == ["Stroma", "Immune cells", "Other"]
