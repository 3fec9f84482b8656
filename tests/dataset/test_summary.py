import json

import numpy as np
import pytest
import yaml
from dataset.dataset_making import CLASSES, annotated, slide
from PIL import Image
from typer.testing import CliRunner

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import DatasetError
from wsigen.cli.app import app
from wsigen.dataset.summary import UNKNOWN_RGB, paint


@pytest.fixture
def file(tmp_path):
    annotated(tmp_path / "slides")
    slide(tmp_path / "plain" / "u1.png", seed=5)
    values = {
        "classes": CLASSES[1:],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 1.0}],
        "patch_px": 128,
        "overlap_px": 32,
        "sources": [
            {"kind": "annotated", "images": "slides", "mpp": 0.5},
            {"kind": "unlabelled", "images": "plain/*.png", "mpp": 0.5},
        ],
    }
    path = tmp_path / "dataset.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_train_data_prints_saves_and_shows(file):
    done = CliRunner().invoke(app, ["train", "data", str(file)])
    assert done.exit_code == 0, done.output
    assert "training: 2 images (1 with labels) of 2 groups" in done.output
    cache = file.with_suffix(".cache")
    summary = json.loads((cache / "summary.json").read_text())
    assert summary["splits"]["training"]["levels"]["patch"]["classes"]["Tumor"]["patches"] > 0
    sheet = np.asarray(Image.open(cache / "patches.png"))
    colours = {tuple(c) for c in sheet.reshape(-1, 3)[::7].tolist()}
    assert {(200, 0, 0), (150, 200, 150), UNKNOWN_RGB} <= colours


def test_skip_bad_names_and_counts_what_is_left_out(file):
    (file.parent / "plain" / "bad.png").write_bytes(b"no image")
    refused = CliRunner().invoke(app, ["train", "data", str(file)])
    assert isinstance(refused.exception, DatasetError)
    done = CliRunner().invoke(app, ["train", "data", str(file), "--skip-bad", "--cache", str(file.parent / "c")])
    assert done.exit_code == 0, done.output
    assert "1 images could not be opened" in done.output
    assert "bad.png" in done.output


def test_colours_are_those_of_the_classes():
    table = ClassTable((TissueClass("A", (1, 2, 3)), TissueClass("B", (4, 5, 6))))
    painted = paint(np.array([[0, 1, UNKNOWN]], np.uint8), table)
    assert painted.tolist() == [[[1, 2, 3], [4, 5, 6], list(UNKNOWN_RGB)]]
