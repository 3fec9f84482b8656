"""A slide of 100,000 px in arithmetic: what one worker does is the sum of all work, and what binds is named."""

import json
import sys

import pytest

from benchmarks import scale, task_times
from benchmarks.document import END
from benchmarks.task_times import TaskTimes
from wsigen.base.errors import ConfigError

FREE = scale.Store(1e15, 1e15, 0.0)
TIMES = TaskTimes.load()
SIZE = 20_000


def run(layout="all tissue", times=TIMES, store=FREE, chunk=256, crop=0.1):
    return scale.plan_run(scale.tissue_mask(SIZE, layout), chunk, times, crop, 1.0, store)


def test_a_third_of_the_slide_is_tissue():
    assert scale.tissue_mask(SIZE, "two thirds glass").mean() == pytest.approx(1 / 3, abs=0.03)
    assert scale.tissue_mask(SIZE, "all tissue").all()


def test_one_worker_takes_the_sum_of_all_work():
    """Crops as shifted windows place them, every pixel in every step, every window and block."""
    alone, extent = run(), SIZE / 8
    crops = ((extent / (scale.CROP - scale.OVERLAP)) ** 2 + 1.5 * (extent / 256) ** 2) * scale.STEPS  # and filled batches
    windows, blocks = (extent / scale.WINDOW) ** 2, (extent / scale.BLOCK) ** 2
    work = crops * 0.1 + extent**2 * scale.STEPS * TIMES.pixel + windows + blocks * TIMES.tissue_block + scale.STATISTICS
    serial = blocks * TIMES.driver_block
    assert alone.on(1, TIMES, FREE)[0] == pytest.approx(work + serial + alone.tasks * TIMES.task, rel=0.05)


def test_more_workers_never_take_longer_and_glass_keeps_fewer_busy():
    full, glass = run(), run("two thirds glass")
    for one in (full, glass):
        seconds = [one.on(workers, TIMES, FREE)[0] for workers in scale.WORKERS]
        assert seconds == sorted(seconds, reverse=True)
    ratio = [one.on(1, TIMES, FREE)[0] / one.on(128, TIMES, FREE)[0] for one in (full, glass)]
    assert glass.on(1, TIMES, FREE)[0] < 0.5 * full.on(1, TIMES, FREE)[0]
    assert ratio[0] > 1.2 * ratio[1]


def test_a_step_moves_about_seven_times_its_chunk():
    moved = run(chunk=512).stages[0].moved
    state = (SIZE / 8) ** 2 * scale.CHANNELS * 4
    assert moved / state / scale.STEPS == pytest.approx(7, rel=0.25)


@pytest.mark.parametrize(
    ("binds", "workers", "times", "store"),
    [
        ("work", 1, {}, FREE),
        ("wavefront", 10_000, {"driver": 0.0, "scheduler": 0.0}, FREE),
        ("driver", 1000, {"driver": 1.0}, FREE),
        ("scheduler", 1000, {"scheduler": 1.0}, FREE),
        ("store", 1000, {}, scale.Store(1e6, 1e6, 0.0)),
        ("class map and file", 1000, {"driver_block": 1000.0}, FREE),
    ],
)
def test_what_binds_is_named(binds, workers, times, store):
    changed = TIMES.model_copy(update=times)
    assert run(times=changed).on(workers, changed, store)[1].startswith(binds)


def test_the_document_gets_the_tables(tmp_path, monkeypatch, capsys):
    TIMES.save(times := tmp_path / "times.json")
    page = tmp_path / "page.md"
    page.write_text(f"above\n<!-- table: {scale.COMMAND} -->\n{END}\nbelow\n")
    given = ["scale", "--size", str(SIZE), "--times", str(times), "--document", str(page)]
    monkeypatch.setattr(sys, "argv", given)
    assert scale.main() == 0
    text = page.read_text()
    assert text.count("\n| 128 |") == 5  # two layouts, two models, an ample store
    assert text.count("\n| 512 | ") == 5 + 2
    assert text.endswith(f"{END}\nbelow\n")
    times.write_text(json.dumps({"machine": "none"}))
    assert scale.main() == 2
    assert str(times) in capsys.readouterr().err
    assert page.read_text() == text


@pytest.mark.parametrize("wrong", [{"driver": "fast"}, {"driver": -1.0}, {"driver": None}, {"more": 1.0}])
def test_task_times_are_numbers(tmp_path, wrong):
    (path := tmp_path / "times.json").write_text(json.dumps({**TIMES.model_dump(), **wrong}))
    with pytest.raises(ConfigError, match=r"--measure.*(driver|more)"):
        TaskTimes.load(path)


@pytest.mark.slow
def test_dispatching_is_measured_on_a_real_scheduler(tmp_path, monkeypatch):
    """The engine's own loop, so that a change of what it sends is noticed here."""
    monkeypatch.setattr(task_times, "WORKERS", 2)
    monkeypatch.setattr(task_times, "WARM", 20)
    monkeypatch.setattr(task_times, "EMPTY", {"size": (1536, 1536), "chunk": 64, "steps": 2})
    found = task_times.measure_dispatching(tmp_path)
    assert set(found) == {"driver", "scheduler", "task"}
    assert all(0 < seconds < 0.5 for seconds in found.values())
