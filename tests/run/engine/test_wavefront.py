"""The scheduling rule as a property: any order of completion, any loss, any glass."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.base.geometry import ChunkGrid
from wsigen.run.engine.wavefront import Wavefront


class Keys:
    """A store that checks, at every task, that what the task reads exists and that no more than three versions live."""

    def __init__(self, grid, active, steps):
        self.grid, self.active, self.last = grid, set(active), 2 * steps
        self.live = set()

    def near(self, ij):
        return [n for n in self.grid.neighbourhood(ij) if n in self.active]

    def do(self, h, ij):
        if h > 0:
            for n in self.near(ij):
                assert (h - 1, n) in self.live, f"{h} of {ij} reads a missing {h - 1} of {n}"
        if h > 0 and h % 2 == 0:
            assert (h - 2, ij) in self.live
        self.live.add((h, ij))
        states = [k for k, c in self.live if c == ij and k % 2 == 0]
        partials = [k for k, c in self.live if c == ij and k % 2 == 1]
        assert len(states) <= 3
        assert len(partials) <= 3

    def record(self):
        found = {}
        for h, ij in self.live:
            found.setdefault(ij, set()).add(h)
        return found


layouts = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6).map(random.Random))


def run_some(wave, keys, rng, limit, tolerance=0):
    """Run up to ``limit`` tasks, several in flight, finishing in random order, with duplicates."""
    flying = []
    for _ in range(limit):
        while len(flying) < 4 and (task := wave.next()):
            flying.append(task)
        if not flying:
            break
        h, ij = flying.pop(rng.randrange(len(flying)))
        if rng.random() < 0.1:
            wave.retry(h, ij)
            continue
        keys.do(h, ij)
        for dead in wave.finish(h, ij):
            keys.live.remove(dead)
        assert wave.finish(h, ij) == []
        done = wave.progress()
        for a in done:
            for b in keys.near(a):
                assert abs(done[a] - done[b]) <= 1 + tolerance
    for h, ij in flying:
        wave.retry(h, ij)


@given(layouts)
@settings(max_examples=60, deadline=None)
def test_rule_holds_and_three_versions_suffice_through_kills(case):
    rows, columns, steps, rng = case
    grid = ChunkGrid(rows * 8, columns * 8, 8)
    active = [ij for ij in grid if rng.random() < 0.8] or [(0, 0)]
    keys = Keys(grid, active, steps)
    while True:
        wave = Wavefront(grid, active, steps, keys.record())
        for h, ij in wave.leftovers(keys.record()):
            keys.live.discard((h, ij))
        run_some(wave, keys, rng, rng.randrange(1, 60))
        if wave.finished:
            break
    assert keys.live == {(2 * steps - k, ij) for k in range(min(5, 2 * steps + 1)) for ij in active}
    assert wave.completed == wave.total
    assert wave.next() is None


def test_lowest_half_step_comes_first():
    grid = ChunkGrid(32, 8, 8)
    wave = Wavefront(grid, list(grid), 3)
    assert [wave.next() for _ in range(4)] == [(0, (i, 0)) for i in range(4)]
    assert wave.next() is None
    wave.finish(0, (0, 0))
    assert wave.next() is None
    wave.finish(0, (1, 0))
    assert wave.next() == (1, (0, 0))


def test_no_tissue_is_finished_at_once():
    wave = Wavefront(ChunkGrid(32, 32, 8), [], 5)
    assert wave.finished
    assert wave.next() is None


@pytest.mark.parametrize("seed", range(20))
def test_damaged_key_is_made_again_only_from_live_inputs(seed):
    rng = random.Random(seed)
    grid = ChunkGrid(24, 24, 8)
    keys = Keys(grid, list(grid), 4)
    wave = Wavefront(grid, list(grid), 4)
    run_some(wave, keys, rng, 40 + seed)
    h, ij = rng.choice(sorted(keys.live))
    inputs = {(h - 1, n) for n in keys.near(ij)} if h else set()
    inputs |= {(h - 2, ij)} if h and h % 2 == 0 else set()
    done = wave.progress()[ij]
    mended = wave.roll_back(h, ij)
    if mended:
        keys.live.discard((h, ij))
        assert inputs <= keys.live | {(h, ij)}
    else:
        assert done not in (h, h + 1) or not inputs <= keys.live
    while mended and not wave.finished:
        run_some(wave, keys, rng, 50, tolerance=2)


@given(layouts)
@settings(max_examples=60, deadline=None)
def test_any_one_key_that_will_be_read_can_be_lost(case):
    rows, columns, steps, rng = case
    grid = ChunkGrid(rows * 8, columns * 8, 8)
    active = [ij for ij in grid if rng.random() < 0.8] or [(0, 0)]
    keys = Keys(grid, active, steps)
    wave = Wavefront(grid, active, steps)
    run_some(wave, keys, rng, rng.randrange(1, 200))
    done = wave.progress()
    wanted = [(h, ij) for h, ij in keys.live if any(done[n] <= h for n in keys.near(ij)) or (h % 2 == 0 and done[ij] <= h + 1)]
    if wanted:
        lost = rng.choice(sorted(wanted))
        keys.live.remove(lost)
        assert wave.roll_back(*lost)
    while not wave.finished:
        run_some(wave, keys, rng, 50, tolerance=2)
    assert keys.live == {(h, ij) for h in range(max(0, 2 * steps - 4), 2 * steps + 1) for ij in active}
