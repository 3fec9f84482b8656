"""Parts whose layouts a mask model draws, and parts that follow references; a recipe knows both by content."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from cohort.test_make import digests
from PIL import Image
from tiny_bundles import make_mask_model

from wsigen.base.errors import WsigenError
from wsigen.cohort.estimate import estimate_cohort
from wsigen.cohort.make import make_cohort
from wsigen.cohort.plan import read_plan
from wsigen.cohort.preview import preview_cohort
from wsigen.cohort.regenerate import regenerate_cohort
from wsigen.cohort.verify import verify_cohort


@pytest.fixture
def plan(content, write, tmp_path):
    """Two slides by a mask model, and two from each of two references."""
    make_mask_model(tmp_path / "masks")
    rng = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for name in ("first", "second"):
        cells = rng.integers(90, 240, (18, 16, 3), np.uint8)
        Image.fromarray(cells.repeat(32, 0).repeat(32, 1)).save(tmp_path / f"real/{name}.png")
    content["parts"] = [
        {"name": "masks", "slides": 2, "subtypes": {"half": 0.5, "more": 0.5}, "mask_model": "masks"},
        {"name": "real", "references": "real/*.png", "times": 2, "split": "test"},
    ]
    return write(content)


def test_slides_by_a_mask_model_and_from_references(plan, tmp_path):
    out = tmp_path / "cohort"
    shown = preview_cohort(plan, tmp_path / "sheet.png")
    assert Counter(slide.part for slide in shown) == {"masks": 2, "real": 4}
    assert estimate_cohort(plan, workers=1).slides == 6
    assert make_cohort(plan, out, workers=2).complete
    assert verify_cohort(out).good
    made = digests(out)
    assert len(set(made.values())) == 6
    manifests = {path.stem: json.loads(path.read_text()) for path in (out / "slides").glob("*.json")}
    assert manifests["demo-masks-0000"]["drawn_layout"]["by"] == "mask model"
    assert manifests["demo-real-first-01"]["inputs"]["reference"]["name"] == "first.png"
    assert "drawn by the mask model (2)" in (out / "README.md").read_text()
    for path in out.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".jpg", ".tiff"):
            assert str(tmp_path).encode() not in path.read_bytes(), path
    _regenerate(plan, out, tmp_path)
    _another_mask_model(plan, out, tmp_path)


def _regenerate(plan, out, folder):
    """From the recipe alone, with mask model and references at new places."""
    place = {name.rpartition("/")[2]: name for name in read_plan(plan).model}
    moved = folder / "elsewhere"
    shutil.copytree(folder / "masks", moved / "masks")
    shutil.copytree(folder / "real", moved / "real")
    with pytest.raises(WsigenError, match=r"first.png is missing; .* --place first.png=PATH"):
        regenerate_cohort(out, places=place | {"masks": moved / "masks"}, workers=1)
    place |= {"masks": moved / "masks", **{path.name: path for path in (moved / "real").iterdir()}}
    again = regenerate_cohort(out, slides=["demo-masks-0001", "demo-real-second-00"], places=place, workers=1)
    assert (len(again.same), again.other) == (2, ())
    make_mask_model(moved / "other", seed=1)
    with pytest.raises(WsigenError, match="other is not the masks of the recipe"):
        regenerate_cohort(out, places=place | {"masks": moved / "other"}, workers=1)


def _another_mask_model(plan, out, folder):
    """Under the same name it is noticed, and nothing is lost."""
    before = digests(out)
    shutil.rmtree(folder / "masks")
    make_mask_model(folder / "masks", seed=1)
    with pytest.raises(WsigenError, match=r"holds another cohort \(inputs.masks"):
        make_cohort(plan, out, workers=1)
    (folder / "real/first.png").write_bytes((folder / "real/second.png").read_bytes())
    shutil.rmtree(folder / "masks")
    shutil.copytree(folder / "elsewhere/masks", folder / "masks")
    with pytest.raises(WsigenError, match=r"holds another cohort \(inputs.first.png"):
        make_cohort(plan, out, workers=1)
    assert digests(out) == before
    assert verify_cohort(out).good
