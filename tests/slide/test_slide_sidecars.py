from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_making import exact_mean, make_slide, tissue

from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.sidecars import import_script, write_manifest, write_thumbnail


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
        r"(\.ome)?\.tiff?$",
        "no annotations",
    ):
        assert part in script
    assert all(script.count(a) == script.count(b) for a, b in ("()", "{}", "[]"))
