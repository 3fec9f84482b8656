"""The commands are there once registered, and a wrong recipe is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wsigen.base.errors import ConfigError
from wsigen.cli.train_models import register


@pytest.fixture
def app() -> typer.Typer:
    found = typer.Typer()
    register(found)
    return found


def test_the_commands_explain_themselves(app: typer.Typer) -> None:
    for name in ("autoencoder", "denoiser", "mask"):
        told = CliRunner().invoke(app, [name, "--help"])
        assert told.exit_code == 0
        assert "--resume" in told.output


def test_a_recipe_that_is_not_there_is_named(app: typer.Typer, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["denoiser", str(tmp_path / "no.yaml"), "--out", str(tmp_path)])
    assert isinstance(told.exception, ConfigError)
    assert "no.yaml: no such recipe" in str(told.exception)


def test_a_decay_that_never_forgets_is_one_line(app: typer.Typer, tmp_path: Path) -> None:
    """AdamW would refuse it with a traceback, after the dataset was indexed."""
    (tmp_path / "a.yaml").write_text("dataset: c.yaml\nloop: {betas: [0.9, 1.0]}\n")
    told = CliRunner().invoke(app, ["autoencoder", str(tmp_path / "a.yaml"), "--out", str(tmp_path)])
    assert isinstance(told.exception, ConfigError)
    assert "loop.betas" in str(told.exception)
    assert "\n" not in str(told.exception)
