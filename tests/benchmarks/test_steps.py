"""Steps against quality: cells are made once, and deterministic samplers come nearer to the finest run with more steps."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from benchmarks import steps


@pytest.fixture
def real(tmp_path):
    """Tiles of noise."""
    rng = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for k in range(12):
        Image.fromarray(rng.integers(60, 220, (128, 128, 3), dtype=np.uint8)).save(tmp_path / "real" / f"{k}.png")
    return tmp_path / "real"


def call(monkeypatch, bundle, real, out, *more):
    given = ["--model", bundle, "--real", real, "--out", out, "--slides", 1, "--slide-px", 512, "--crops", 12, "--crop-px", 128]
    given += ["--features", "embedded", "--steps", 2, 6, "--finest", 20, "--real-mpp", 0.5, *more]
    monkeypatch.setattr(sys, "argv", ["steps", *map(str, given)])
    return steps.main()


def test_cells_are_measured_and_not_made_again(monkeypatch, bundle, real, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"<!-- table: {steps.COMMAND} -->\n<!-- end of table -->\n")
    out = tmp_path / "out"
    assert call(monkeypatch, bundle, real, out, "--document", page) == 0
    table = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row[:2] for row in rows] == [[n, title] for n in ("2", "6") for title, _ in steps.SAMPLERS.values()]
    far, near = ([float(row[-1]) for row in rows[at : at + 2]] for at in (0, 3))
    assert rows[2][-1] == rows[5][-1] == "-"
    assert max(near) < min(far)
    assert table.strip() in page.read_text()
    assert ElementTree.parse(tmp_path / steps.PICTURE).getroot().tag.endswith("svg")
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.tiff")}
    assert len(made) == 7
    assert call(monkeypatch, bundle, real, out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tiff")} == made
    assert capsys.readouterr().out == table


def test_what_is_wrong_is_said_in_one_line(monkeypatch, bundle, tmp_path, capsys):
    assert call(monkeypatch, bundle, tmp_path / "nowhere", tmp_path / "out") == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "nowhere" in said[0]
