"""The rehearsal: the tasks of a run, in a small slide, with a model that costs nothing."""

import itertools
from collections import Counter
from dataclasses import fields
from time import perf_counter

import numpy as np
import pytest
import tiny_bundles

from wsigen.base.geometry import Box
from wsigen.layout.layout import UniformLayout
from wsigen.models.model import load_model
from wsigen.run.config import make_config
from wsigen.run.estimate import rehearsal
from wsigen.run.estimate.rehearsal import BesideModel, measure_beside
from wsigen.run.prepare import prepare

PICTURE = np.random.default_rng(0).uniform(0, 255, (1024, 1024, 3)).astype(np.float32)


def rehearsed(bundle, tmp_path, clock=perf_counter, **more):
    settings = {
        "model": str(bundle),
        "size": (4096, 4096),
        "class_name": "Tumor",
        "chunk": 256,
        "levels": 1,
        "steps": 3,
        **more,
    }
    prepared = prepare(make_config(settings), tmp_path / "x.ome.tiff")
    model = load_model(bundle, "cpu", "fp32")
    monitored = Counter()
    for name in ("predict", "decode", "features", "decode_features"):
        setattr(model, name, lambda *_, name=name, **__: monitored.update([name]))
    place = tmp_path / "scratch"
    place.mkdir()
    return measure_beside(prepared, model, PICTURE, clock, place), monitored


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
    found, calls = rehearsed(bundle, tmp_path, **more)
    none = [field.name for field in fields(BesideModel) if not getattr(found, field.name) > 0.0]
    assert set(none) <= {"denoise", "tissue_file", "glass_file"}  # differences of two times
    assert not calls
    assert found.glass_block < found.tissue_block  # of noise, which is slow to encode


def test_models_of_every_kind_are_rehearsed(token_bundle, tmp_path):
    """Class tokens, and a decoder with attention, whose features the real model would compute."""
    found, calls = rehearsed(token_bundle, tmp_path)
    assert found.row > 0.0
    assert not calls
    attending = tiny_bundles.make_text_bundle(tmp_path / "text")
    (tmp_path / "other").mkdir()
    found, calls = rehearsed(attending, tmp_path / "other", class_name=None, guidance=1.0)
    assert found.row > 0.0
    assert not calls


def test_a_model_without_glass_has_no_cheaper_blocks(tmp_path):
    classes = [c for c in tiny_bundles.CLASSES if not c.get("background")]
    bundle = tiny_bundles.make_class_map_bundle(tmp_path / "bundle", classes=classes)
    found, _ = rehearsed(bundle, tmp_path)
    assert found.glass_block > 0.5 * found.tissue_block


def test_a_task_is_done_as_often_as_it_is_timed(bundle, tmp_path, monkeypatch):
    """Keys of the repetition before are gone: a task never finds its own result."""
    done = Counter()
    for name in ("start", "denoise", "assemble"):
        original = getattr(rehearsal, name)

        def counted(run, part, ij, *step, name=name, original=original):
            half_step = {"start": 0, "denoise": 3, "assemble": 4}[name]
            assert half_step not in part.state.record().get(ij, set())
            done[name] += 1
            return original(run, part, ij, *step)

        monkeypatch.setattr(rehearsal, name, counted)
    rehearsed(bundle, tmp_path)
    assert done == {"start": rehearsal.REPETITIONS, "denoise": rehearsal.REPETITIONS, "assemble": rehearsal.REPETITIONS}


@pytest.mark.parametrize("chunk", [32, 256, 300, 512, 1024, 2048])
def test_the_block_of_glass_is_bare(bundle, tmp_path, monkeypatch, chunk):
    """And the one of tissue has none, whatever the side of a chunk."""
    decoded = {}

    def look(run, part, ij):
        block = run.slide.grid.box(ij)
        assert block.shape == (run.slide.block, run.slide.block)
        f = part.plan.factor
        box = Box(block.y0 // f, block.x0 // f, block.y1 // f, block.x1 // f).dilate(8).intersect(part.plan.grid.canvas)
        decoded.setdefault(ij, part.state.read_classes(box) == run.glass_index)

    monkeypatch.setattr(rehearsal, "decode_block", look)
    rehearsed(bundle, tmp_path, size=(32768, 16384), chunk=chunk)
    tissue, glass = decoded.values()
    assert glass.all()
    assert not tissue.any()


def test_a_layout_that_takes_long_is_waited_for(bundle, tmp_path):
    """The run's own layout is asked for some of its chunks."""
    asked = []
    original = UniformLayout.class_map

    def slow(self, box, cell_px):
        asked.append(box)
        return original(self, box, cell_px)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UniformLayout, "class_map", slow)
        ticks = itertools.count()
        found, _ = rehearsed(bundle, tmp_path, clock=lambda: float(next(ticks)))
    assert len(asked) >= 4
    chunks = 4 * 256**2
    assert found.prepare == pytest.approx(1 / chunks + 1 / (12 * 256**2))
