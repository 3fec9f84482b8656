"""The estimate: what it counts is what a run does, and its seconds follow from the counts and the measured speed."""

import itertools
from dataclasses import dataclass, fields, replace
from time import perf_counter

import numpy as np
import pytest
import tiny_bundles
from drawing import feature, square, tumor_in_stroma, write_layout
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.models.card import BundleCard
from wsigen.run.config import make_config
from wsigen.run.engine.workers import Workers
from wsigen.run.estimate.calls import calls_of_chunk, count_calls
from wsigen.run.estimate.estimate import DISPATCH_S, DRIVER_S, TASK_S, count_pass, estimate_by, guide_seconds
from wsigen.run.estimate.memory import Projection, model_size, project_run
from wsigen.run.estimate.speed import NonModelCost, Speed, measure_speed
from wsigen.run.generate import generate
from wsigen.run.prepare import prepare
from wsigen.sampling.passes import PassPlan
from wsigen.sampling.schedule import Schedule

BATCH = 2
CHUNKS = 9
"""Of the slide of `settings_of`: 80 x 96 latent px, 32 a side."""
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
        counted = sum(count_pass(prepared, plan).rows for plan in prepared.spec.passes)
        generate(tmp_path / f"{mode}.ome.tiff", watch=lambda s, stages=stages: stages.__setitem__(s.name, s.calls), **settings)
        assert counted == sum(stages.values())


@dataclass
class Ellipses:
    """Tumour and stroma on glass."""

    height: int
    width: int
    shapes: list[tuple[float, float, float, float, float, int]]

    def class_map(self, box, cell_px):
        ys, xs = (np.arange(begin, end) + 0.5 for begin, end in ((box.y0, box.y1), (box.x0, box.x1)))
        y, x = ys[:, None] * cell_px / self.height, xs[None, :] * cell_px / self.width
        found = np.zeros(box.shape, np.uint8)
        for cy, cx, a, b, turn, label in self.shapes:
            u, v = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn), (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
            found[(u / a) ** 2 + (v / b) ** 2 < 1] = label
        return found


shapes = st.tuples(*[st.floats(0.1, 0.9)] * 2, *[st.floats(0.1, 0.5)] * 2, st.floats(0, 3), st.integers(1, 2))


@given(
    found=st.lists(shapes, min_size=1, max_size=4),
    kind=st.sampled_from(["class-tokens", "class-map"]),
    guidance=st.sampled_from([0.0, 1.0]),
    mode=st.sampled_from(["shifted", "pathup"]),
)
@settings(max_examples=12, deadline=None)
def test_few_chunks_tell_the_calls_of_all(found, kind, guidance, mode):
    """24 of up to 256 chunks, on slides of any shape of tissue: within 5 %."""
    check_count(found, kind, guidance, mode)


def test_few_chunks_tell_the_calls_of_random_patches():
    check_count([(0.4, 0.5, 0.3, 0.2, 0.5, 1), (0.5, 0.6, 0.1, 0.2, 1.0, 2)], "class-tokens", 1.0, "random-patch")


def check_count(found, kind, guidance, mode):
    card = BundleCard.model_validate(tiny_bundles.tiny_card(kind))
    modes = {"pathup": (8, "linear"), "shifted": (2, "linear"), "random-patch": (0, "linear")}
    overlap, taper = modes[mode]
    plan = PassPlan(0, 0, 768, 768, 1, 8, 48, 16, Schedule((999,), (0.0, 1.0)), "noise", 1.0, mode, overlap, taper, 0, 3)
    layout = Ellipses(768 * 8, 768 * 8, found)
    every = sum(calls_of_chunk(card, layout, plan, ij, [0], 0, guidance, 1) for ij in plan.grid)
    assert count_calls(card, layout, plan, 0, guidance).rows == pytest.approx(every, rel=0.05)


def said(bundle, speed, monkeypatch, **more):
    """The estimate on a machine of a given speed."""
    monkeypatch.setattr("wsigen.run.estimate.estimate.measure_speed", lambda *_: speed)
    return estimate_by(ticks(), make_config(settings_of(bundle, **{"class_name": "Tumor", **more})))


def test_seconds_follow_from_the_calls(bundle, monkeypatch):
    few, many = (said(bundle, Speed(call=1.0, decode=0.01), monkeypatch, steps=n) for n in (3, 7))
    beside = (7 - 3) * 2 * CHUNKS * (TASK_S + DISPATCH_S + DRIVER_S)
    assert many.seconds - few.seconds == pytest.approx(many.calls - few.calls + beside)
    assert many.windows == few.windows
    assert 0 < few.calls < many.calls


@pytest.mark.parametrize("name", [field.name for field in fields(NonModelCost)])
def test_seconds_hold_what_is_done_besides_the_model(bundle, monkeypatch, name):
    """All tissue, one worker, three steps: every cost as often as a run has it."""
    steps, area = 3, 80 * 96
    plain = said(bundle, Speed(call=1.0, decode=0.01), monkeypatch, steps=steps)
    speed = Speed(call=1.0, decode=0.01, non_model=NonModelCost(**{name: 0.01}))
    more = said(bundle, speed, monkeypatch, steps=steps)
    often = {"start": area, "step": steps * area, "tissue_block": 1, "glass_block": 0, "driver_block": 1}
    assert more.seconds - plain.seconds == pytest.approx(0.01 * often[name], abs=1e-9)


def test_glass_costs_a_block_and_its_file_and_no_model_call(bundle, tmp_path, monkeypatch):
    """Tissue in the first of 3 x 2 blocks."""
    layout = write_layout(tmp_path / "layout.geojson", feature("Tumor", square(300, 300, 600)))
    more = {"class_name": None, "layout": layout, "size": (6000, 4000), "chunk": 256, "steps": 1, "workers": 1}
    plain = said(bundle, Speed(1.0, 0.01), monkeypatch, **more)
    for name, often in (("tissue_block", 1), ("glass_block", 5), ("driver_block", 6)):
        found = said(bundle, Speed(1.0, 0.01, non_model=NonModelCost(**{name: 0.01})), monkeypatch, **more)
        assert found.seconds - plain.seconds == pytest.approx(0.01 * often), name


@pytest.mark.parametrize(("accelerated", "tasks", "overlap"), [(True, 2, True), (True, 1, False), (False, 2, False)])
def test_tasks_that_share_an_accelerator_overlap_state_and_model(bundle, monkeypatch, accelerated, tasks, overlap):
    """The longer of the two is what a run takes there; elsewhere it is their sum."""
    here = Workers(1, False, 1, None, 2, accelerated, tasks)
    monkeypatch.setattr("wsigen.run.estimate.estimate.Workers.of", lambda _: here)
    for name in ("TASK_S", "DRIVER_S"):
        monkeypatch.setattr(f"wsigen.run.estimate.estimate.{name}", 0.0)
    model, state, both = (
        said(bundle, Speed(call, 0.0, non_model=NonModelCost(step=pixel)), monkeypatch, steps=20).seconds
        for call, pixel in ((1.0, 0.0), (1e-9, 1e-3), (1.0, 1e-3))
    )
    none = said(bundle, Speed(1e-9, 0.0), monkeypatch, steps=20).seconds  # the scheduler's, which are fewer than either
    longer, shorter = max(model, state), min(model, state)
    assert none < shorter
    doubly = none - 1  # beside the model is the scheduler's share on a CPU of its own
    assert both == pytest.approx(longer if overlap else longer + shorter - 1, abs=doubly)


def test_no_worker_shares_the_drivers_part(bundle, monkeypatch):
    """Class map, file and annotations: twice the slide takes twice as long, whatever the number of workers."""
    base = Speed(call=1.0, decode=0.01)

    def of_driver(**more):
        costly = replace(base, non_model=NonModelCost(driver_block=2.0))
        return said(bundle, costly, monkeypatch, **more).seconds - said(bundle, base, monkeypatch, **more).seconds

    alone = of_driver(size=(2048, 2048))
    assert alone == pytest.approx(2.0)
    assert of_driver(size=(2048, 2048), workers=8, scheduler="tcp://127.0.0.1:1") == pytest.approx(alone)
    assert of_driver(size=(2048, 4096)) == pytest.approx(2 * alone)


def test_the_driver_bounds_what_many_workers_do(bundle, monkeypatch):
    """1,000 workers of a cluster: a task each per half-step, and no faster than the driver passes them on."""
    more = {"workers": 1000, "scheduler": "tcp://127.0.0.1:1", "steps": 3}
    slow, fast, none = (said(bundle, Speed(call, 0.01), monkeypatch, **more).seconds for call in (1.0, 1e-9, 1e-12))
    assert fast == none < slow
    few = said(bundle, Speed(1.0, 0.01), monkeypatch, steps=3, workers=CHUNKS, scheduler="tcp://127.0.0.1:1").seconds
    assert slow == pytest.approx(few)  # there are no more chunks


def test_the_machine_is_measured_where_the_run_will_lie(bundle, tmp_path, monkeypatch):
    """Model and tasks have a speed above zero, and nothing is left of the measurement."""
    monkeypatch.chdir(tmp_path)
    prepared = prepare(make_config(settings_of(bundle, class_name="Tumor")), tmp_path / "x.ome.tiff")
    speed = measure_speed(prepared, 1, perf_counter, tmp_path)
    assert speed.call > 0
    assert speed.decode > 0
    assert speed.encode == 0
    assert not list(tmp_path.iterdir())


def test_two_workers_share_what_can_be_shared(bundle, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    settings = settings_of(bundle, class_name="Tumor", steps=3)
    found = {n: estimate_by(ticks(), make_config({**settings, "workers": n})) for n in (1, 2, 9)}
    assert found[2].seconds < found[1].seconds < 2 * found[2].seconds
    assert found[9].seconds == found[2].seconds  # there are no more cores


def test_a_pass_that_starts_from_a_picture_takes_longer(bundle, tmp_path):
    plans = prepare(make_config(settings_of(bundle, class_name="Tumor")), tmp_path / "x.ome.tiff").spec.passes
    speed = Speed(call=1.0, decode=0.01, encode=0.01)
    fine = replace(plans[0], index=1, start="previous")
    coarse = replace(plans[0], scale=4, height=plans[0].height // 4, width=plans[0].width // 4)
    costs = {word: guide_seconds([coarse, replace(fine, start=word)], 1, speed) for word in ("noise", "reference", "previous")}
    assert costs["noise"] == 0 < costs["reference"] < costs["previous"]
    larger = [coarse, replace(fine, height=2 * fine.height)]
    assert guide_seconds(larger, 1, speed) > costs["previous"]


def test_a_run_stays_below_its_projected_disk(bundle, tmp_path):
    settings = settings_of(bundle, class_name="Tumor", steps=3, compression="deflate")
    prepared = prepare(make_config(settings), tmp_path / "slide.ome.tiff")
    projection = project_run(prepared.spec, prepared.card, prepared.layout)
    most = 0

    def look(_stage):
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))

    generate(tmp_path / "slide.ome.tiff", watch=look, **settings)
    assert 0 < most <= projection.disk_state + projection.disk_output + projection.disk_scratch


def test_weights_are_counted_as_they_lie_in_memory(bundle):
    from wsigen.models.model import load_model

    model = load_model(bundle)
    held = sum(p.numel() * 4 for module in (model.unet, model.autoencoder.vae) for p in module.parameters())
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


def test_workers_share_the_cores_that_this_process_may_use(bundle, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3}, raising=False)
    speed = Speed(call=1.0, decode=0.01)
    one, many = (said(bundle, speed, monkeypatch, workers=workers).seconds for workers in (1, 8))
    there = said(bundle, speed, monkeypatch, workers=8, scheduler="tcp://a:1").seconds
    assert one == many > 2 * there


def test_worker_processes_take_their_time_to_start(bundle, monkeypatch):
    """They import and load what the driver has, once, as all start together."""
    speed = Speed(call=1.0, decode=0.01)
    threads, processes = (said(bundle, speed, monkeypatch, processes=processes).seconds for processes in (False, True))
    assert processes - threads == pytest.approx(1.0)
