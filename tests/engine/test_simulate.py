"""The simulation of large runs: known cases."""

import pytest

from benchmarks.simulate import Costs, simulate
from wsigen.geometry import ChunkGrid

GRID = ChunkGrid(40, 40, 10)
TASKS = 16 * 3


def test_one_worker_does_all_the_work_and_nothing_else():
    found = simulate(GRID, 3, 1, 2, Costs(2.0, 0.5, 0.0))
    assert found.seconds == pytest.approx(TASKS * 2.0 + (TASKS + 16) * 0.5)
    assert found.efficiency == pytest.approx(1.0)


def test_more_workers_than_chunks_wait_for_the_wavefront():
    found = simulate(GRID, 3, 100, 2, Costs(2.0, 0.5, 0.0))
    assert found.seconds == pytest.approx(3 * 2.0 + 4 * 0.5)
    assert found.efficiency < 0.2


def test_a_slow_driver_binds():
    costs = Costs(0.01, 0.01, 1.0)
    found = simulate(GRID, 3, 8, 2, costs)
    assert found.seconds == pytest.approx(2 * TASKS + 16, rel=0.1)
    assert found.driver > 0.9
