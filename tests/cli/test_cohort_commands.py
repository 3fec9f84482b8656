"""``wsigen cohort``: exit codes and what is printed; what it does is tested in tests/cohort."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from wsigen.base.errors import ConfigError, OutputError
from wsigen.cli.app import app
from wsigen.cohort.make import Cohort
from wsigen.cohort.verify import Verification


def run(*arguments):
    return CliRunner().invoke(app, ["cohort", *map(str, arguments)])


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "size": "512x512", "parts": [{"slides": 2, "subtypes": "cores"}]}))
    return path


CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(("name", "start"), [("layouts.png", b"\x89PNG"), ("layouts.jpg", b"\xff\xd8\xff")])
def test_preview_of_the_small_plan(name, start, tmp_path):
    done = run("preview", CONFIGS / "cohort-small.yaml", "--out", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_bytes().startswith(start)
    assert "4, from small-sampled-0000 to small-drawn-demo-small-00" in done.output


def test_a_picture_of_another_name_is_refused(plan, tmp_path):
    done = run("preview", plan, "--out", tmp_path / "layouts.tif")
    assert isinstance(done.exception, OutputError)
    assert "PNG or JPEG" in str(done.exception)
    assert not (tmp_path / "layouts.tif").exists()


@pytest.mark.parametrize("failed", [{}, {"x-0001": "no disk"}])
def test_a_failed_slide_is_exit_code_1(failed, plan, tmp_path, monkeypatch):
    given = {}

    def make(plan, out, **settings):
        given.update(settings)
        return Cohort(out, (), ("x-0000",), failed)

    monkeypatch.setattr("wsigen.cohort.make.make_cohort", make)
    done = run("make", plan, "--out", tmp_path / "out", "--workers", 3, "--runs", 1)
    assert done.exit_code == bool(failed)
    assert (given["workers"], given["runs"], given["publish"]) == ("3", 1, False)  # `RunConfig` reads numbers
    assert ("failed: x-0001: no disk" in done.output) == bool(failed)


@pytest.mark.parametrize("problems", [(), ("slides/a.ome.tiff: is missing",)])
def test_verify_says_what_is_wrong(problems, tmp_path, monkeypatch):
    monkeypatch.setattr("wsigen.cohort.verify.verify_cohort", lambda folder: Verification(3, 1, (), problems))
    done = run("verify", tmp_path)
    assert done.exit_code == bool(problems)
    assert all(f"problem: {problem}" in done.output for problem in problems)


def test_a_place_is_name_and_path(tmp_path):
    done = run("regenerate", tmp_path, "--place", "model")
    assert isinstance(done.exception, ConfigError)
    assert "'model' is not NAME=PATH" in str(done.exception)
