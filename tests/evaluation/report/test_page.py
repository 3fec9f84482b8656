"""Pages of reports: whatever they are given is escaped, and they load nothing."""

import re

import numpy as np
import pytest

from wsigen.evaluation.report.page import Axis, boxes, lines, picture, plain, render, scatter

EVIL = '<script>alert("1")</script>'


def test_names_in_plots_are_escaped():
    for svg in (
        scatter([(EVIL, 0.5, 0.5)], EVIL, EVIL),
        lines([0, 1], [(EVIL, [1.0, 2.0])], EVIL, EVIL),
        boxes([(EVIL, [1.0, 2.0])], EVIL),
    ):
        assert "<script" not in svg
        assert "&lt;script&gt;" in svg
        assert not re.search(r"(src|href)=", svg)


def test_a_picture_holds_its_pixels():
    tag = picture(np.zeros((300, 200, 3), np.uint8), EVIL)
    assert re.fullmatch(r'<img alt="&lt;script&gt;[^<>]*" src="data:image/jpeg;base64,[A-Za-z0-9+/=]+">', tag)


def test_a_value_that_does_not_exist_leaves_a_gap():
    svg = lines([0, 1, 2], [("a", [1.0, float("nan"), 2.0])], "x", "y")
    assert len(re.search(r'points="([^"]*)"', svg)[1].split()) == 2
    assert lines([0], [("a", [float("nan")])], "x", "y") == ""
    assert boxes([], "x") == ""
    assert plain({"a": float("nan"), "b": (1, float("inf"))})["b"] == [1, None]


@pytest.mark.parametrize(("low", "high", "step"), [(0, 1, 0.2), (0.94, 1.06, 0.05), (-24, 24, 10), (0, 3.3e-6, 1e-6)])
def test_ticks_are_round(low, high, step):
    ticks = Axis("x", low, high, 0, 100).ticks
    assert np.diff(ticks) == pytest.approx(step)
    assert low <= ticks[0] < low + step
    assert high - step < ticks[-1] <= high * (1 + 1e-9)


def test_what_a_template_lacks_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("evaluation.html")
