"""The estimate: what it counts is what a run does, and its seconds follow from the counts and the measured speed."""

import itertools
from dataclasses import replace

import pytest
from drawing import tumor_in_stroma
from hypothesis import given
from hypothesis import strategies as st

from wsigen.config import make_config
from wsigen.engine.memory import Projection
from wsigen.estimate import count_calls, estimate, guide_seconds
from wsigen.generation import generate
from wsigen.preparation import prepare
from wsigen.projection import model_size, plans_of, project_run
from wsigen.speed import Speed

BATCH = 2
MIB = 2**20


def ticks():
    """A clock by which whatever is measured takes one second."""
    count = itertools.count()
    return lambda: float(next(count))


def settings_of(bundle, **more):
    return {"model": str(bundle), "size": (640, 768), "chunk": 32, "batch": BATCH, "levels": 1, "workers": 1, **more}


def test_counted_rows_are_those_of_the_run(bundle, tmp_path):
    """Of all modes; with batches of one nothing is padded."""
    layout = tumor_in_stroma(tmp_path / "layout.geojson")
    for mode in ("pathup", "shifted", "random-patch"):
        stages = {}
        settings = settings_of(bundle, mode=mode, layout=layout, steps=2, guidance=1.0, batch=1)
        prepared = prepare(make_config(settings), tmp_path / "x.ome.tiff")
        counted = sum(count_calls(prepared, plan) for plan in plans_of(prepared.manifest))
        generate(tmp_path / f"{mode}.ome.tiff", watch=lambda s, stages=stages: stages.__setitem__(s.name, s.calls), **settings)
        assert counted == sum(stages.values())


def test_seconds_follow_from_the_calls(bundle):
    few, many = (estimate(make_config(settings_of(bundle, class_name="Tumor", steps=n)), ticks()) for n in (3, 7))
    assert many.seconds - few.seconds == pytest.approx((many.calls - few.calls) / BATCH)
    assert many.windows == few.windows
    assert 0 < few.calls < many.calls


def test_two_workers_share_what_can_be_shared(bundle, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    said = {n: estimate(make_config(settings_of(bundle, class_name="Tumor", steps=3, workers=n)), ticks()) for n in (1, 2, 9)}
    assert said[2].seconds < said[1].seconds < 2 * said[2].seconds
    assert said[9].seconds == said[2].seconds  # there are no more cores


def test_a_pass_that_starts_from_a_picture_takes_longer(bundle, tmp_path):
    plans = plans_of(prepare(make_config(settings_of(bundle, class_name="Tumor")), tmp_path / "x.ome.tiff").manifest)
    speed = Speed(call=1.0, decode=0.01, pack=0.001, encode=0.01)
    fine = replace(plans[0], index=1, start="previous")
    coarse = replace(plans[0], scale=4, height=plans[0].height // 4, width=plans[0].width // 4)
    costs = {
        word: guide_seconds([coarse, replace(fine, start=word)], 1, 8, speed) for word in ("noise", "reference", "previous")
    }
    assert costs["noise"] == 0 < costs["reference"] < costs["previous"]
    larger = [coarse, replace(fine, height=2 * fine.height)]
    assert guide_seconds(larger, 1, 8, speed) > costs["previous"]


def test_a_run_stays_below_its_projected_disk(bundle, tmp_path):
    settings = settings_of(bundle, class_name="Tumor", steps=3, compression="deflate")
    prepared = prepare(make_config(settings), tmp_path / "slide.ome.tiff")
    projection = project_run(prepared.manifest, prepared.card, prepared.layout)
    most = 0

    def look(_stage):
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))

    generate(tmp_path / "slide.ome.tiff", watch=look, **settings)
    assert 0 < most <= projection.disk_state + projection.disk_output + projection.disk_scratch


def test_weights_are_counted_as_they_lie_in_memory(bundle):
    from wsigen.models.loading import load_parts

    parts = load_parts(bundle, "cpu")
    held = sum(p.numel() * 4 for module in (parts.unet, parts.vae) for p in module.parameters())
    assert model_size(bundle).weights == held


@given(
    workers=st.integers(1, 64),
    chunks=st.integers(1, 100),
    blocks=st.integers(1, 100),
    tasks=st.tuples(*[st.integers(1, 4096)] * 2),
)
def test_more_workers_need_more_memory_until_all_have_work(workers, chunks, blocks, tasks):
    denoise, decode = (size * MIB for size in tasks)
    projection = Projection(denoise, decode, chunks, blocks, 100 * MIB, 1000, 0, 0)
    threads, processes = (projection.total(workers, own) for own in (False, True))
    assert threads < processes
    assert threads >= min(workers, chunks) * denoise
    more = projection.total(workers + 1, False)
    assert more > threads if workers < max(chunks, blocks) else more == threads


def test_workers_share_the_cores_that_this_process_may_use(monkeypatch):
    from wsigen import estimate
    from wsigen.generation import Workers

    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3}, raising=False)
    assert estimate._at_once(Workers(8, False, 1, None, 2), "cpu") == 1
    assert estimate._at_once(Workers(8, False, 1, "tcp://a:1", 2), "cpu") == 8
