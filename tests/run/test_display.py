"""How a run goes on, in words: no time left before it means something; lines on pipes, bars on terminals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.run.display import LEFT_AFTER_S, describe, display, duration, time_left
from wsigen.run.engine.stage import Stage


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (42.4, "42 s"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min"), (4 * 3600 + 3 * 86400, "3 d 4 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@given(st.floats(0, 1e8))
def test_durations_are_short_and_close(seconds):
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    words = duration(seconds).split()
    assert len(words) <= 4
    value = sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(value - seconds) <= max(1.0, 0.05 * seconds)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 1e6))
def test_the_time_left_is_said_once_it_means_something(total, done, before, seconds):
    done, before = min(done, total), min(before, done, total)
    left = time_left(Stage("denoise", total, done, before=before, seconds=seconds, workers=1))
    if seconds < LEFT_AFTER_S or done in (before, total):
        assert left is None
    elif left is not None:
        assert left == pytest.approx(seconds / (done - before) * (total - done), rel=0.1, abs=600)
        assert " left" in describe(Stage("denoise", total, done, before=before, seconds=seconds, workers=1))


def test_lines_say_stage_speed_time_and_workers(capsys):
    with display() as watch:
        watch(Stage("denoise, level 1 of 2 (2.8 um/px)", 200, 100, calls=300, workers=2, seconds=100.0, run="abc"))
        watch(Stage("decode", 9, 0, workers=0))
        watch(Stage("decode", 0, note="1 worker left; 3 there now"))
        watch(Stage("decode", 9, 9, workers=1, seconds=61.0, finished=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].split("  ")[1:] == [
        "denoise, level 1 of 2 (2.8 um/px): 50 %",
        "100/200 tasks",
        "3.0 crops/s",
        "2 min left",
        "2 workers",
    ]
    assert "waiting for workers" in lines[1]
    assert lines[2].endswith("decode: 1 worker left; 3 there now")
    assert lines[3].endswith("took 1 min 1 s")
