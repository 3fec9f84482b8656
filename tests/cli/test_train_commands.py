"""``wsigen train``: a wrong recipe is one line, and is found before torch is imported."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsigen.base.errors import ConfigError
from wsigen.cli.app import app


@pytest.fixture
def refused(tmp_path: Path):
    def run(name: str, recipe: str) -> str:
        told = CliRunner().invoke(app, ["train", name, str(tmp_path / recipe), "--out", str(tmp_path / "out")])
        assert isinstance(told.exception, ConfigError), told.output
        assert not (tmp_path / "out").exists()
        return str(told.exception)

    return run


@pytest.mark.parametrize("name", ["autoencoder", "denoiser", "mask"])
def test_a_recipe_that_is_not_there_is_named(refused, name: str) -> None:
    assert "no.yaml: no such recipe" in refused(name, "no.yaml")


def test_a_decay_that_never_forgets_is_one_line(refused, tmp_path: Path) -> None:
    """AdamW would refuse it with a traceback, after the dataset was indexed."""
    (tmp_path / "a.yaml").write_text("dataset: c.yaml\nloop: {betas: [0.9, 1.0]}\n")
    message = refused("autoencoder", "a.yaml")
    assert "loop.betas" in message
    assert "\n" not in message
