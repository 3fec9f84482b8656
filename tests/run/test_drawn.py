import json

import pytest
from runs import settings_of

from wsigen.base.errors import WsigenError
from wsigen.run.generate import generate


def test_what_was_drawn_lies_beside_the_class_map(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, steps=1, keep_run=False, size=(1280, 1168), layout_mpp=1.0, drawn=True)
    path = tmp_path / "layout.geojson"
    drawing = json.loads(path.read_text())
    drawing["features"][0] |= {"id": "6c0f1c32-4a7b-4c57-9d5e-0d5a4f6f2a11"}
    drawing["features"][0]["properties"]["name"] = "nest 1"
    path.write_text(json.dumps(drawing))
    generate(tmp_path / "slide.ome.tiff", **settings)
    made = json.loads((tmp_path / "slide.drawn.geojson").read_text())["features"]
    assert len(made) == len(drawing["features"])
    assert (made[0]["id"], made[0]["properties"]["name"]) == (drawing["features"][0]["id"], "nest 1")
    for drawn, written in zip(drawing["features"], made, strict=True):
        assert written["properties"]["classification"]["name"] == drawn["properties"]["classification"]["name"]
        x, y = drawn["geometry"]["coordinates"][0][0]
        assert written["geometry"]["coordinates"][0][0] == [2 * x, 2 * y]
    (tmp_path / "other.drawn.geojson").write_text("mine")
    with pytest.raises(WsigenError, match="exists already"):
        generate(tmp_path / "other.ome.tiff", **settings)
    with pytest.raises(WsigenError, match="'drawn' writes the polygons of a layout's file"):
        generate(tmp_path / "third.ome.tiff", model=str(bundle), size=(512, 512), class_name="Tumor", drawn=True)
