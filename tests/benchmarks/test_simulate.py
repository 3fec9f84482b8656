"""The simulation of a slide: its tasks are the plan's, its bytes those of the store, and a real run takes as long."""

import json
import sys
from dataclasses import asdict, replace

import pytest
import tiny_bundles

from benchmarks import simulate
from benchmarks.document import END
from benchmarks.scale import dispatching
from benchmarks.scale.events import Load, Platform, Store
from benchmarks.scale.events import simulate as simulate_stage
from benchmarks.scale.run import open_slide, run_slide
from benchmarks.scale.slide import Costs, DecodeTasks, PassTasks
from benchmarks.scale.times import Scenario, TaskTimes, this_cpu
from wsigen.base.errors import ConfigError
from wsigen.base.geometry import ChunkGrid
from wsigen.run.engine.wavefront import Wavefront
from wsigen.run.estimate.projection import tissue_share

FREE = Store(1e15, 1e15, 0.0)
NUMBERS = {field: 0.001 for field in asdict(TaskTimes.load()) if field != "machine"}
TIMES = TaskTimes(machine="a test", **NUMBERS)
PER_PIXEL = ("start", "denoise", "assemble", "prepare", "decode", "encode", "driver_worker", "heartbeat")
TIMES = replace(TIMES, **dict.fromkeys(PER_PIXEL, 1e-6), call=0.05)


@pytest.fixture(scope="module")
def slides(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return {name: open_slide(folder, 2560, 64, name, 4, 1, str(bundle)) for name in simulate.LAYOUTS}


def test_a_third_of_the_slide_is_tissue(slides):
    glass = slides["two thirds glass"].prepared.manifest.glass["index"]
    assert tissue_share(slides["two thirds glass"].prepared.layout, glass) == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("layout", simulate.LAYOUTS)
def test_one_worker_takes_the_sum_of_all_stages(slides, layout):
    """And moves the bytes of its tasks: 19 chunks a step inside the canvas."""
    costs = Costs(slides[layout], TIMES, this_cpu(TIMES))
    part = PassTasks(costs, costs.slide.plans[0])
    decode = DecodeTasks(costs, part)
    store = Store(1e9, 2e9, 0.001)
    loads = [part.load(h, ij) for h in range(2 * part.plan.steps + 1) for ij in part.active]
    loads += [part.calibrate, *(decode.load(0, ij) for ij in decode.grid)]
    alone = sum(load.alone(store) + TIMES.driver + TIMES.scheduler for load in loads)
    serial = part.prepare.alone(store) + decode.file.alone(store)
    found = run_slide(slides[layout], TIMES, costs.scenario, Platform(1, 1, TIMES.driver, TIMES.scheduler, store))
    assert found.seconds == pytest.approx(alone + serial)
    total = part.traffic.total()
    state = sum(load.read + load.written for load in loads[: len(part.active) * (2 * part.plan.steps + 1)])
    empty = sum(part.load(1, ij).reads == 1 for ij in part.active) * part.plan.steps
    assert state <= (total.read + total.written) * (1 + 1e-9)
    assert empty or state == pytest.approx(total.read + total.written)


def test_glass_costs_little_and_irregular_tissue_keeps_fewer_workers_busy(slides):
    def hours(layout, workers):
        platform = Platform(workers, 2, 1e-5, 1e-5, FREE)
        return run_slide(slides[layout], TIMES, this_cpu(TIMES), platform).seconds

    full, glass = simulate.LAYOUTS
    assert hours(glass, 1) < 0.6 * hours(full, 1)
    assert hours(full, 1) / hours(full, 16) > 1.2 * hours(glass, 1) / hours(glass, 16)


def test_what_binds_is_named(slides):
    slide, cpu = slides["all tissue"], this_cpu(TIMES)
    light = Scenario("light", 1e-6, 1e-9, 1e-9)
    cases = {
        "work": (cpu, Platform(1, 2, 1e-6, 1e-6, FREE)),
        "wavefront": (cpu, Platform(1000, 2, 1e-6, 1e-6, FREE)),
        "driver": (light, Platform(25, 2, 1.0, 0.1, FREE)),
        "scheduler": (light, Platform(25, 2, 0.1, 1.0, FREE)),
        "store": (light, Platform(25, 2, 1e-6, 1e-6, Store(1e7, 2e7, 0.0))),
        "file": (light, Platform(1000, 2, 1e-9, 1e-9, FREE)),
    }
    slow_file = replace(TIMES, tissue_file=1000.0)
    for name, (scenario, platform) in cases.items():
        found = run_slide(slide, slow_file if name == "file" else TIMES, scenario, platform)
        assert found.binds.startswith(name), (name, found.stages)


def test_a_pass_that_follows_a_coarse_one_is_simulated_after_it(bundle, tmp_path):
    cascade = open_slide(tmp_path, 2560, 64, "all tissue", 4, 2, str(bundle))
    found = run_slide(cascade, TIMES, this_cpu(TIMES), Platform(4, 2, 1e-5, 1e-5, FREE))
    names = [name for name, _, _ in found.stages]
    assert names == ["class map", "denoise", "calibrate", "denoise", "calibrate", "decode", "file"]


def test_the_document_gets_the_tables(bundle, tmp_path, monkeypatch, capsys):
    TIMES.save(times := tmp_path / "times.json")
    page = tmp_path / "page.md"
    page.write_text(f"above\n<!-- table: {simulate.COMMAND} -->\n{END}\nbelow\n")
    few = ["--size", "2048", "--steps", "2", "--chunk", "64", "--chunks", "32", "64", "--workers", "1", "4", "--compared", "4"]
    given = ["simulate", "--model", str(bundle), "--times", str(times), "--document", str(page), *few]
    monkeypatch.setattr(sys, "argv", given)
    assert simulate.main() == 0
    text = page.read_text()
    assert text.count("| 4 |") == 5  # two layouts, two scenarios, an ample store
    assert text.count("| 32 |") == 2
    assert text.endswith(f"{END}\nbelow\n")
    times.write_text(json.dumps({"machine": "none"}))
    assert simulate.main() == 2
    assert str(times) in capsys.readouterr().err
    assert page.read_text() == text


def test_task_times_are_numbers(tmp_path):
    path = tmp_path / "times.json"
    path.write_text(json.dumps({**asdict(TIMES), "driver": "fast"}))
    with pytest.raises(ConfigError, match=r"driver is 'fast'.*--measure"):
        TaskTimes.load(path)


@pytest.mark.slow
def test_a_real_run_on_two_dask_workers_takes_what_its_simulation_says(tmp_path, monkeypatch):
    """Given the seconds that each task took on its worker: what is simulated is the order, the waiting and the driver.

    Most of such a run is work, so that 35 % is far from what a wrong order or a missing overlap would give:
    one worker after the other takes twice as long.
    """
    from wsigen.run.engine.dispatch import Dispatcher
    from wsigen.run.engine.run import _half_step_of
    from wsigen.run.generate import generate
    from wsigen.run.tasks.perform import Report

    bundle = tiny_bundles.make_class_map_bundle(tmp_path / "bundle")
    took, judged = {}, Dispatcher._judged

    def watched(self, task, result):
        if isinstance(result, Report) and task.kind in ("start", "denoise", "assemble"):
            took[_half_step_of(task), task.ij] = result.seconds
        return judged(self, task, result)

    monkeypatch.setattr(Dispatcher, "_judged", watched)
    seconds = {}
    settings = {"model": str(bundle), "class_name": "Tumor", "size": (1536, 1536), "chunk": 48, "levels": 1, "steps": 3}
    generate(
        tmp_path / "x.ome.tiff",
        watch=lambda stage: seconds.__setitem__(stage.name.split()[0], stage.seconds),
        **settings,
        workers=2,
        processes=True,
    )
    grid = ChunkGrid(192, 192, 48)
    times = TaskTimes.load()
    source = Wavefront(grid, list(grid), 3)
    platform = Platform(2, 2, times.driver, times.scheduler + times.task, FREE)
    said = simulate_stage(source, lambda h, ij: Load(took[h, ij]), platform)
    assert len(took) == said.tasks == 16 * 7
    assert seconds["denoise"] == pytest.approx(said.seconds, rel=0.35)
    assert said.seconds >= sum(took.values()) / 2


@pytest.mark.slow
def test_dispatching_is_measured_on_a_real_scheduler(tmp_path, monkeypatch):
    """The engine's own loop, so that a change of what it sends is noticed here."""
    for name, value in {"WORKERS": 2, "SIDE_CHUNKS": 3, "STEPS": 2, "IDLE_S": 0.5}.items():
        monkeypatch.setattr(dispatching, name, value)
    found = dispatching.measure_dispatching(tmp_path / "run")
    assert set(found) <= set(asdict(TIMES))
    assert 0 < found["driver"] < 0.5
    assert 0 < found["task"] < 0.5
