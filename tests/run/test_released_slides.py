"""A slide of a released checkpoint, imported: told its grid by tokens."""

import sys
from pathlib import Path

import numpy as np
import torch

from wsigen.grids.grid import GridFile
from wsigen.grids.wsz import new_grid
from wsigen.models.zoomldm import import_zoomldm
from wsigen.run.generate import generate

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import released


def test_an_imported_model_draws_a_slide_by_its_grid(tmp_path):
    torch.save(released.make_checkpoint(8)[0], tmp_path / "weights.ckpt")
    card, _ = import_zoomldm(tmp_path / "weights.ckpt", tmp_path / "bundle")
    about = {"encoder": card.grid.encoder, "cell_um": 128.0, "encoder_mpp": 0.5, "width_um": 256.0, "height_um": 256.0}
    for name in ("a", "b"):
        cells = np.random.default_rng(ord(name)).normal(size=(12, 2, 2))
        with new_grid(tmp_path / f"{name}.wsz", GridFile(**about), cells.shape) as writer:
            writer.write(0, cells, np.ones((2, 2), bool))
            writer.overview(np.zeros((8, 8, 3), np.uint8))
    settings = {"model": str(tmp_path / "bundle"), "size": (512, 512), "class_name": "Tissue", "mode": "shifted", "levels": 1}
    settings |= {"steps": 1, "workers": 1, "guidance": 0.0}
    slides = [
        generate(tmp_path / f"{name}.ome.tiff", grid=tmp_path / f"{name}.wsz", **settings).level0_sha256 for name in ("a", "b")
    ]
    assert slides[0] != slides[1]
