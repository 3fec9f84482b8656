"""What all benchmarks share: work in new processes, times of stages, bundles and layouts."""

import json
import os

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.bundles import make_bundle, one_class, tissues, write_sections
from benchmarks.figure import Figure, Spent, StageTimes
from benchmarks.processes import environment, in_process, peak_rss
from benchmarks.scale import tissue_mask
from wsigen.base.errors import ConfigError
from wsigen.run.config import make_config
from wsigen.run.engine.stage import Stage


def test_work_in_a_process_is_done_there_and_its_errors_come_back(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    with environment({"WSIGEN_TEST": "1"}, without=("MALLOC_",)):
        assert in_process(os.getpid) != os.getpid()
        assert in_process(os.getenv, "WSIGEN_TEST") == "1"
        assert in_process(os.getenv, "MALLOC_ARENA_MAX") is None
    assert os.environ["MALLOC_ARENA_MAX"] == "2"
    assert "WSIGEN_TEST" not in os.environ
    assert in_process(peak_rss) > 2**20
    with pytest.raises(ConfigError, match="colour"):
        in_process(make_config, {"colour": "red"})


def test_stages_are_summed_by_the_beginning_of_their_names():
    times = StageTimes()
    times(Stage("denoise 1", 4))
    times(Stage("denoise 1", 4, 4, 8, seconds=2.0, finished=True))
    times(Stage("decode", 3, seconds=1.0))
    assert (times.wall("denoise"), times.wall("decode"), times.wall("de"), times.wall("x")) == (2.0, 1.0, 3.0, 0)
    assert times.rows == 8
    with Spent() as spent:
        sum(range(10**6))
    assert 0 < spent.cpu < spent.wall * 2


def test_a_figure_is_reached_between_floor_and_target():
    figures = [Figure("x", "x", value, 1.3, "", floor=1.0) for value in (0.9, 1.0, 1.3, 1.4)]
    assert [figure.reached for figure in figures] == [False, True, True, False]


def test_settings_are_of_the_bundles_own_classes(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", (4,), 4)
    assert tissues(bundle) == ["Tumor", "Stroma"]
    config = make_config(one_class(bundle, 1024, steps=3))
    assert (config.class_name, config.size, config.steps, config.workers) == ("Tumor", (1024, 1024), 3, 1)


def test_the_sections_that_are_drawn_are_those_that_are_reckoned_with(tmp_path):
    drawn = Image.new("1", (250, 250))
    for feature in json.loads(write_sections(tmp_path / "a.geojson", 250, "Tumor").read_text())["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in ring], fill=1)
    mask = tissue_mask(250 * 64, "two thirds glass")
    assert np.mean(mask != np.asarray(drawn)) < 0.02
