import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.base.geometry import Box, ChunkGrid
from wsigen.base.noise import priority_field
from wsigen.sampling.passes import MODES, PassPlan
from wsigen.sampling.pathup import PathUpPlan
from wsigen.sampling.plan import TAPERS, centre
from wsigen.sampling.random_patch import RandomPatchPlan
from wsigen.sampling.schedule import Schedule
from wsigen.sampling.shifted import ShiftedPlan

SIDE = 16


def plans(height, width, seed):
    return [
        PathUpPlan(height, width, SIDE, SIDE // 2),
        PathUpPlan(height, width, SIDE, 5, "gaussian"),
        PathUpPlan(height, width, SIDE, 0, "flat"),
        ShiftedPlan(height, width, seed, 1, SIDE, 4),
        RandomPatchPlan(height, width, seed, 1, SIDE, steps=4),
        RandomPatchPlan(height, width, seed, 1, SIDE, steps=4, weighted_last=4),
        ShiftedPlan(height, width, seed, 1, SIDE, 4, align=2),
        RandomPatchPlan(height, width, seed, 1, SIDE, steps=4, align=4),
    ]


extents = st.integers(SIDE, 90)


@given(extents, extents, st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_weights_sum_to_one_at_every_pixel(height, width, seed, step):
    for plan in plans(height, width, seed):
        total = np.zeros((height, width))
        for crop in plan.crops(step, Box(0, 0, height, width)):
            assert crop.box.shape == (SIDE, SIDE)
            assert crop.weight.min() >= 0
            total[crop.box.slices] += crop.weight
        assert np.allclose(total, 1, atol=1e-5), plan


@given(extents, extents, st.integers(0, 2**32), st.integers(16, 40))
@settings(max_examples=25, deadline=None)
def test_every_crop_belongs_to_one_chunk_with_the_same_weights(height, width, seed, chunk):
    grid = ChunkGrid(height, width, chunk)
    for plan in plans(height, width, seed):
        whole = {c.box: c.weight for c in plan.crops(2, grid.canvas)}
        found = {}
        for ij in grid:
            for crop in plan.crops(2, grid.box(ij)):
                assert crop.box not in found
                assert grid.box(ij).contains(*centre(crop.box))
                found[crop.box] = crop.weight
        assert found.keys() == whole.keys()
        assert all(np.array_equal(found[box], whole[box]) for box in whole)


def whole_canvas_process(plan, step):
    """DiffInfinite's process read literally: visit pixels in priority order, draw a crop at each uncovered one."""
    priority = priority_field(plan.seed, Box(0, 0, plan.height, plan.width), plan.level, step)
    covered = np.zeros(priority.shape, dtype=bool)
    boxes = []
    for flat in np.argsort(priority, axis=None, kind="stable"):
        y, x = divmod(int(flat), plan.width)
        if not covered[y, x]:
            y0, x0 = ((c - plan.side // 2) // plan.align * plan.align for c in (y, x))
            y0, x0 = min(max(y0, 0), plan.height - plan.side), min(max(x0, 0), plan.width - plan.side)
            box = Box(y0, x0, y0 + plan.side, x0 + plan.side)
            covered[box.slices] = True
            boxes.append(box)
    return boxes


@given(st.integers(SIDE, 150), st.integers(SIDE, 150), st.integers(0, 2**32), st.integers(0, 9), st.sampled_from([1, 2, 4]))
@settings(max_examples=15, deadline=None)
def test_chunk_local_random_crops_equal_the_global_process(height, width, seed, step, align):
    plan = RandomPatchPlan(height, width, seed, 0, SIDE, align=align)
    expected = whole_canvas_process(plan, step)
    grid = ChunkGrid(height, width, 32)
    for ij in grid:
        local = [c.box for c in plan.crops(step, grid.box(ij))]
        assert local == [b for b in expected if grid.box(ij).contains(*centre(b))]


@given(
    st.sampled_from(MODES), st.integers(SIDE, 90), st.integers(SIDE, 90), st.integers(0, SIDE - 1), st.integers(0, 2**32),
    st.sampled_from([1, 2, 4, 8]), st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_windows_cut_pixels_into_the_same_squares_in_every_step(mode, height, width, overlap, seed, align, step):
    """But for those that are held back by the far edges."""
    schedule = Schedule((3, 2, 1, 0), (0.1, 0.3, 0.6, 0.9, 1.0))
    plan = PassPlan(0, 0, height, width, 1, 8, 32, SIDE, schedule, "noise", 1.0, mode, overlap, "linear", 0, seed, align)
    for crop in plan.crop_plan().crops(step, plan.grid.canvas):
        assert crop.box.y0 % align == 0 or crop.box.y1 == height
        assert crop.box.x0 % align == 0 or crop.box.x1 == width


def test_random_patches_own_what_they_covered_first():
    plan = RandomPatchPlan(80, 80, 3, 0, SIDE)
    covered = np.zeros((80, 80), dtype=bool)
    for crop in plan.crops(1, Box(0, 0, 80, 80)):
        assert np.array_equal(crop.weight == 1, ~covered[crop.box.slices])
        covered[crop.box.slices] = True
    assert covered.all()


def test_cost_of_the_modes_in_tiles():
    canvas = Box(0, 0, 1024, 1024)
    tiles = 1024 * 1024 / 64**2
    assert len(PathUpPlan(1024, 1024).crops(0, canvas)) / tiles <= 4
    assert len(RandomPatchPlan(1024, 1024, 0).crops(0, canvas)) / tiles <= 2.4
    assert len(ShiftedPlan(1024, 1024, 0).crops(0, canvas)) / tiles <= 1.6


def test_pathup_weight_has_the_range_of_the_text():
    weight = TAPERS["pathup"](64)
    assert weight.min() == pytest.approx(0.508, abs=5e-4)
    assert weight.max() == pytest.approx(0.992, abs=5e-4)


def test_shifted_lattice_moves_from_step_to_step():
    plan = ShiftedPlan(256, 256, 1)
    starts = {plan.crops(step, Box(0, 0, 256, 256))[1].box.x0 for step in range(12)}
    assert len(starts) > 6
