"""The harness of faults: what it draws, what it harms, how it reads progress, what it calls passed."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults.campaign import CampaignError, Fault, draw
from benchmarks.faults.damage import damage
from benchmarks.faults.experiment import Plan, _differences, _skipped
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.progress import contents, half_steps
from benchmarks.faults.report import Report


@given(st.integers(1, 120), st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True), st.integers(0, 99))
def test_faults_are_drawn_evenly_and_again_alike(count, kinds, seed):
    drawn = draw(count, kinds, random.Random(seed))
    counts = Counter(drawn)
    assert len(drawn) == count
    assert set(drawn) <= set(kinds)
    assert max(counts.values()) - min(counts.get(kind, 0) for kind in kinds) <= 1
    assert drawn == draw(count, kinds, random.Random(seed))


def test_what_cannot_strike_is_not_drawn():
    assert _skipped(Plan(9, workers=1), "") == {"part": "it takes two workers (--workers 2)"}
    assert _skipped(Plan(9, workers=2), "") == {}
    assert set(_skipped(Plan(9, workers=1), "no ip command")) == {"cut", "part"}
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
    name = damage(run_dir, random.Random(3), truncate)
    after = contents(run_dir)
    assert _differences(before, after) == [f"not as undisturbed: {name}"]
    assert not name.endswith("zarr.json")
    assert (len(after[name]) < 64) == truncate


def test_a_run_passes_with_equal_pixels_and_no_problem_alone():
    report = Report(0, "tmpfs", {}, digest="a", expected="a", faults=[Fault("driver", 3, 1.5)])
    assert report.passed
    assert report.to_json()["kinds"][0]["count"] == 1
    report.problems.append("left over: a")
    assert not report.passed
    assert not Report(0, "tmpfs", {}, digest="b", expected="a").passed
    assert not Report(0, "tmpfs", {}).passed
