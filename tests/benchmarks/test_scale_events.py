"""The simulation of a stage is one: no faster than anything allows, exact where nothing overlaps, and like a real run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale.events import Independent, Load, Platform, Store, longest_chain, simulate
from wsigen.base.geometry import ChunkGrid
from wsigen.run.engine.wavefront import Wavefront

CHUNK = 8
seconds = st.floats(0.1, 10.0)
stores = st.builds(Store, st.floats(1.0, 50.0), st.floats(1.0, 50.0), st.floats(0.0, 0.1))


@st.composite
def stages(draw):
    """A pass whose tasks all cost something else, some chunks of it glass."""
    rows, columns, steps = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    grid = ChunkGrid(rows * CHUNK, columns * CHUNK, CHUNK)
    active = draw(st.lists(st.sampled_from(list(grid)), min_size=1, unique=True))
    few = st.builds(Load, seconds, st.floats(0.0, 20.0), st.integers(0, 3), st.floats(0.0, 20.0), st.integers(0, 3))
    kinds = draw(st.lists(few, min_size=1, max_size=5))
    return grid, active, steps, lambda h, ij: kinds[(7 * h + 3 * ij[0] + ij[1]) % len(kinds)]


def run(stage, platform):
    grid, active, steps, loads = stage
    return simulate(Wavefront(grid, active, steps), loads, platform)


def tasks_of(stage):
    _, active, steps, loads = stage
    return [loads(h, ij) for h in range(2 * steps + 1) for ij in active]


@given(stages(), stores, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_one_worker_takes_the_sum_of_all_that_is_done(stage, store, driver, scheduler):
    """One task in flight: nothing overlaps."""
    outcome = run(stage, Platform(1, 1, driver, scheduler, store))
    loads = tasks_of(stage)
    slowest = min(store.worker, store.total)
    moved = sum((x.read + x.written) / slowest + (x.reads + x.writes) * store.latency for x in loads)
    assert outcome.seconds == pytest.approx(sum(x.work for x in loads) + moved + len(loads) * (driver + scheduler))
    assert outcome.tasks == len(loads)


@given(stages(), stores, st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.integers(1, 40), st.integers(1, 3))
def test_nothing_is_faster_than_its_bounds(stage, store, driver, scheduler, workers, window):
    platform = Platform(workers, window, driver, scheduler, store)
    grid, active, steps, loads = stage
    chain = longest_chain(grid, active, steps, loads, platform)
    outcome = run(stage, platform)
    for name, bound in outcome.bounds(platform, chain).items():
        assert outcome.seconds >= bound * (1 - 1e-9), name
    one_at_a_time = sum(x.alone(store) for x in tasks_of(stage)) + outcome.tasks * (driver + scheduler)
    shared = outcome.size / store.total  # what is asked for later waits for what was asked for before
    assert outcome.seconds <= (one_at_a_time + shared) * (1 + 1e-9)


@given(stages(), st.integers(1, 20), st.integers(1, 20))
def test_more_workers_are_not_slower_by_more_than_a_task(stage, few, more):
    """Some may be slower: what is ready first is not always what should go first."""
    store = Store(1e9, 1e9, 0.0)
    slow = run(stage, Platform(few, 2, 0.001, 0.001, store)).seconds
    fast = run(stage, Platform(few + more, 2, 0.001, 0.001, store)).seconds
    assert fast <= slow + max(x.work for x in tasks_of(stage))


@given(st.integers(1, 60), st.integers(1, 60), seconds)
def test_equal_tasks_that_wait_for_nothing_take_whole_rounds(count, workers, each):
    store = Store(1e9, 1e9, 0.0)
    outcome = simulate(Independent([(k, 0) for k in range(count)]), lambda h, ij: Load(each), Platform(workers, 2, 0, 0, store))
    assert outcome.seconds == pytest.approx(-(-count // workers) * each)


def test_a_crowded_store_a_busy_driver_and_a_busy_scheduler_each_bind():
    tasks, free = [(k, 0) for k in range(400)], Store(1e12, 1e12, 0.0)
    for platform, load, seconds in (
        (Platform(50, 2, 0.0, 0.0, Store(10.0, 100.0, 0.0)), Load(0.01, 10.0, 1, 10.0, 1), 400 * 20 / 100),
        (Platform(50, 2, 0.1, 0.0, free), Load(0.5), 40.0),
        (Platform(50, 2, 0.0, 0.1, free), Load(0.5), 40.0),
    ):
        assert simulate(Independent(tasks), lambda h, ij, load=load: load, platform).seconds == pytest.approx(seconds, rel=0.05)
