"""A run that is watched: what the page is told, the picture so far, and what becomes of it in the end."""

from __future__ import annotations

import json
import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import interrupt_in_the_middle, settings_of
from seeing import keep

from wsigen.run.engine.stage import Stage
from wsigen.run.generate import generate, resume
from wsigen.run.inspect import inspect
from wsigen.viewing.server import serving
from wsigen.viewing.shown_run import ShownRun
from wsigen.viewing.site import site_of


@pytest.fixture
def run_dir(bundle: Path, tmp_path: Path) -> Path:
    interrupt_in_the_middle(tmp_path / "a.ome.tiff", settings_of(bundle, tmp_path, keep_run=False), 20)
    return tmp_path / "a.run"


def test_state_and_pictures(run_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    run = ShownRun(str(run_dir))
    data, state = json.loads(run.data()), json.loads(run.state())
    assert (data["kind"], data["title"]) == ("run", "a.ome.tiff")
    assert 0 < state["stages"][0]["share"] < 1
    assert state["stages"][-1]["title"] == "decode"
    assert [entry["label"] for entry in state["legend"]][-2:] == ["finished", "glass"]
    picture, steps = (Image.open(BytesIO(data)) for data in (run.picture(), run.steps()))
    assert picture.size == steps.size == (80, 73)  # latents
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    assert state["picture"] == json.loads(run.state())["picture"]  # nothing went on
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before  # and nothing was touched


def test_a_model_that_is_not_here_leaves_the_map(bundle: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(bundle, model)
    interrupt_in_the_middle(tmp_path / "a.ome.tiff", settings_of(model, tmp_path), 20)
    model.rename(tmp_path / "elsewhere")
    state = json.loads(ShownRun(str(tmp_path / "a.run")).state())
    assert "its model is not here" in state["note"]
    assert state["steps"]
    assert not state["picture"]


def test_a_picture_without_a_browser(run_dir: Path, tmp_path: Path) -> None:
    report = inspect(run_dir, tmp_path / "so-far.png")
    assert report.picture == str(tmp_path / "so-far.png")
    inspect(run_dir)
    with Image.open(tmp_path / "so-far.png") as both, Image.open(run_dir / "timesteps.png") as alone:
        assert both.width > 1.5 * alone.width


def test_a_run_becomes_its_slide(visit: Any, run_dir: Path) -> None:
    with serving(site_of(str(run_dir))) as url:
        page = visit.go(url, ".view.run[data-ready]")
        assert page.locator(".mark").text_content() == "synthetic"
        page.wait_for_function("() => document.querySelector('.so-far').naturalWidth === 80")
        assert page.locator("progress").count() == 2
        resume(run_dir)
        page.wait_for_selector(".view:not(.run)[data-ready]", timeout=60_000)
        assert page.title() == "a.ome.tiff"
        assert page.locator(".legend li").count() > 0


def test_a_picture_for_the_documentation(visit: Any, tmp_path: Path) -> None:
    if "WSIGEN_SCREENSHOTS" not in os.environ:
        pytest.skip("WSIGEN_SCREENSHOTS says where pictures of the page are kept")

    def watch(stage: Stage) -> None:
        if "(0.7 um/px)" in stage.name and stage.done > 0.6 * stage.total:
            raise KeyboardInterrupt

    demo = Path(__file__).parents[2] / "examples" / "demo.geojson"
    how = {"layout": demo, "layout_mpp": 0.35, "size": (2048, 2048), "seed": 1, "chunk": 64, "keep_run": True}
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "slide.ome.tiff", watch=watch, **how)
    with serving(site_of(str(tmp_path / "slide.run"))) as url:
        page = visit.go(url, ".view.run[data-ready]")
        page.wait_for_function("() => document.querySelector('.so-far').naturalWidth > 80")
        page.wait_for_timeout(20_000)  # the picture is made a part at a time
        keep(page, "run")
