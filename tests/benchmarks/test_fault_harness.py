"""The harness of faults: what it draws, what it harms, how it reads progress, what it calls passed."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults.campaign import KINDS, CampaignError, Fault, draw
from benchmarks.faults.experiment import Plan, Report
from benchmarks.faults.store import Pass, contents, damage, differences, half_steps, sort_out, still_read, stored
from wsigen.base.geometry import ChunkGrid


@given(st.integers(1, 120), st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True), st.integers(0, 99))
def test_faults_are_drawn_evenly_and_again_alike(count, kinds, seed):
    drawn = draw(count, kinds, random.Random(seed))
    counts = Counter(drawn)
    assert len(drawn) == count
    assert set(drawn) <= set(kinds)
    assert max(counts.values()) - min(counts.get(kind, 0) for kind in kinds) <= 1
    assert drawn == draw(count, kinds, random.Random(seed))


def test_what_cannot_strike_is_not_drawn():
    assert Plan(9, workers=1).skipped("") == {"part": "it takes two workers (--workers 2)"}
    assert Plan(9, workers=2).skipped("") == {}
    assert set(Plan(9, workers=1).skipped("no ip command")) == {"cut", "part"}
    with pytest.raises(CampaignError, match="--kinds"):
        draw(3, [], random.Random(0))


@pytest.fixture
def run_dir(tmp_path):
    """A run of two chunks: one has ended step 1, the other has a partial of step 1; and a block."""
    names = [
        "latents/c/1/0/0/0",
        "latents/c/0/0/0/0",
        "partials/c/1/0/1/0/0/0",
        "latents/zarr.json",
        "latents/c/0/0/1/.0123456789ab.1",
    ]
    for name in names:
        path = tmp_path / "c" / "work-0123456789ab" / "state.zarr" / "pass-0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(range(64)))
    spool = tmp_path / "c" / "work-0123456789ab" / "spool"
    spool.mkdir()
    (spool / "00000_00000.blk").write_bytes(bytes(64))
    return tmp_path / "c"


def test_progress_is_read_from_names(run_dir):
    assert half_steps(run_dir) == 3 + 4 + 1
    assert half_steps(run_dir / "nowhere") == 0


@pytest.mark.parametrize("truncate", [True, False])
def test_damage_harms_one_chunk_or_block(run_dir, truncate):
    before = contents(run_dir)
    name = str(damage(stored(run_dir), random.Random(3), truncate).relative_to(run_dir))
    after = contents(run_dir)
    assert differences(before, after, {}) == [f"not as undisturbed: {name}"]
    assert not name.endswith("zarr.json")
    assert (len(after[name]) < 64) == truncate


def test_damage_that_nobody_reads_is_no_difference_but_any_other_is(run_dir):
    calm = contents(run_dir)
    state, block = (next(name for name in calm if name.endswith(end)) for end in ("latents/c/1/0/0/0", ".blk"))
    ended = {**calm, state: b"damaged", block: b"damaged"}
    assert differences(calm, ended, {state: b"damaged"}) == [f"not as undisturbed: {block}"]
    assert differences(calm, ended, {state: b"otherwise", block: b"damaged"}) == [
        f"not as undisturbed: {name}" for name in sorted((state, block))
    ]
    assert sort_out(calm, ended, {state: b"damaged", "swept": b"damaged"}) == (1, 1)


def make_run(folder, keys):
    for key in keys:
        path = folder / "work-0123456789ab" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")


def read_of(folder, blocks=1, stopped=False, passes=(4, 4)):
    shapes = [Pass(ChunkGrid(16 * 3, 16, 16), frozenset({(0, 0), (1, 0), (2, 0)}), steps) for steps in passes]
    return {str(p.relative_to(folder / "work-0123456789ab")) for p in still_read(folder, shapes, blocks, stopped)}


def test_in_the_middle_of_a_pass_what_neighbours_wait_for_is_read(tmp_path):
    """Chunk 0 has made y[2]; chunks 1 and 2 have made their partials of step 1."""
    a = [f"state.zarr/pass-0/latents/c/{s}/0/0/0" for s in (0, 1, 2)]
    b = [f"state.zarr/pass-0/latents/c/{s}/0/{i}/0" for i in (1, 2) for s in (0, 1)]
    partials = [f"state.zarr/pass-0/partials/c/{s}/{i}/0/0/0/0" for i in range(3) for s in (0, 1)]
    history = [f"state.zarr/pass-0/history/c/{s}/0/{i}/0" for i in (0, 1) for s in (0, 1)]
    once = ["state.zarr/pass-0/activity/c/0/0"]
    make_run(tmp_path, [*a, *b, *partials, *history, *once])
    expected = {a[2], b[1], b[3], *partials[1::2], *history[1:2], *history[2:4]}
    assert read_of(tmp_path) == expected
    assert read_of(tmp_path, stopped=True) == expected | set(once)


def test_of_a_finished_pass_only_its_last_state_is_read_until_the_next_has_begun(tmp_path):
    ends = [f"state.zarr/pass-0/latents/c/4/0/{i}/0" for i in range(3)]
    dead = [f"state.zarr/pass-0/{key}" for i in range(3) for key in (f"latents/c/3/0/{i}/0", f"partials/c/3/{i}/0/0/0/0")]
    starts = [f"state.zarr/pass-1/latents/c/0/0/{i}/0" for i in range(3)]
    make_run(tmp_path, [*ends, *dead, *starts[:2]])
    assert read_of(tmp_path) == {*ends, *starts[:2]}
    make_run(tmp_path, starts)
    assert read_of(tmp_path) == set(starts)
    last = [f"state.zarr/pass-1/latents/c/4/0/{i}/0" for i in range(3)]
    make_run(tmp_path, [*last, "state.zarr/pass-1/classes/c/0/0"])
    assert read_of(tmp_path) == {*last, "state.zarr/pass-1/classes/c/0/0"}
    make_run(tmp_path, ["spool/00000_00000.blk"])
    assert read_of(tmp_path) == {"spool/00000_00000.blk", "state.zarr/pass-1/classes/c/0/0"}


def test_a_run_passes_with_equal_pixels_and_no_problem_alone():
    report = Report(0, "tmpfs", {}, digest="a", expected="a", faults=[Fault("driver", 3, 1.5)])
    assert report.passed
    assert report.to_json()["kinds"][0]["count"] == 1
    report.problems.append("left over: a")
    assert not report.passed
    assert not Report(0, "tmpfs", {}, digest="b", expected="a").passed
    assert not Report(0, "tmpfs", {}).passed
