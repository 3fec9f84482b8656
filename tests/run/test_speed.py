"""What a run costs besides its model: the tasks of a small slide with a model that costs nothing."""

import itertools
from collections import Counter
from dataclasses import fields
from time import perf_counter

import numpy as np
import pytest
import tiny_bundles

from wsigen.layout.layout import UniformLayout
from wsigen.models.model import load_model
from wsigen.run.config import make_config
from wsigen.run.estimate import speed
from wsigen.run.estimate.speed import LARGEST_CHUNK, STEPS, NonModelCost, NullModel, measure_non_model
from wsigen.run.prepare import prepare

PICTURE = np.random.default_rng(0).uniform(0, 255, (1024, 1024, 3)).astype(np.float32)


def measured(bundle, tmp_path, clock=perf_counter, **more):
    base = {"model": str(bundle), "size": (4096, 4096), "class_name": "Tumor", "chunk": 256, "levels": 1, "steps": 3}
    prepared = prepare(make_config({**base, **more}), tmp_path / "x.ome.tiff")
    model = load_model(bundle, "cpu", "fp32")
    called = Counter()
    for owner, names in ((model, ("predict",)), (model.autoencoder, ("decode", "features", "decode_features"))):
        for name in names:
            object.__setattr__(owner, name, lambda *_, name=name, **__: called.update([name]))
    place = tmp_path / "scratch"
    place.mkdir()
    return measure_non_model(prepared, NullModel(model, PICTURE), clock, place), called


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sampler": "dpm++", "guidance": 0.0},
        {"eta": 1.0, "mode": "random-patch"},
        {"steps": 1, "mode": "pathup", "chunk": 32},
        {"chunk": 384},
    ],
)
def test_every_kind_of_task_is_timed_and_no_model_is_called(bundle, tmp_path, more):
    """Whatever the sampler, the mode, the number of steps and the side of a chunk."""
    cost, called = measured(bundle, tmp_path, **more)
    assert all(getattr(cost, field.name) > 0.0 for field in fields(NonModelCost))
    assert not called
    assert cost.glass_block < cost.tissue_block  # of noise, which is slow to encode


def test_models_of_every_kind(token_bundle, tmp_path):
    """Class tokens, and a decoder with attention, whose features the real model would compute."""
    _, called = measured(token_bundle, tmp_path)
    assert not called
    attending = tiny_bundles.make_text_bundle(tmp_path / "text")
    (tmp_path / "other").mkdir()
    _, called = measured(attending, tmp_path / "other", class_name=None, guidance=1.0)
    assert not called


@pytest.mark.parametrize("chunk", [32, 300, 2048])
def test_tasks_are_those_of_the_run(bundle, tmp_path, monkeypatch, chunk):
    """Each chunk of the small slide is started once and takes every step; blocks are whole and hold nothing but tissue."""
    done = Counter()

    def counted(name):
        original = getattr(speed, name)

        def task(pass_, ij, *step):
            assert max(256, 16) <= pass_.plan.chunk <= LARGEST_CHUNK
            done[name] += 1
            if name == "decode_block":
                assert pass_.run.slide.grid.box(ij).shape == (pass_.run.slide.block,) * 2
            return original(pass_, ij, *step)

        monkeypatch.setattr(speed, name, task)

    for name in ("start", "denoise", "assemble", "decode_block"):
        counted(name)
    measured(bundle, tmp_path, size=(32768, 16384), chunk=chunk)
    assert (done["start"], done["denoise"], done["assemble"]) == (4, 4 * STEPS, 4 * STEPS)
    assert done["decode_block"] >= 4


def test_a_layout_that_takes_long_is_waited_for(bundle, tmp_path, monkeypatch):
    """The run's own layout is asked for some of its chunks; on a clock by which everything takes one second."""
    asked = []
    original = UniformLayout.class_map

    def slow(self, box, cell_px):
        asked.append(box)
        return original(self, box, cell_px)

    monkeypatch.setattr(UniformLayout, "class_map", slow)
    ticks = itertools.count()
    cost, _ = measured(bundle, tmp_path, clock=lambda: float(next(ticks)))
    assert len(asked) >= 4
    assert cost.driver_block == pytest.approx((1 + 1) / 4 + 256**2 / (4 * 256**2))
