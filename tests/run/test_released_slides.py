"""A slide of a released checkpoint, imported: told its grid by tokens."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wsigen.base.errors import GridError
from wsigen.base.geometry import Box
from wsigen.grids.grid import GridFile
from wsigen.grids.tiles import cells_of
from wsigen.grids.wsz import new_grid
from wsigen.models.zoomldm import import_zoomldm
from wsigen.run.generate import generate
from wsigen.run.tasks.context import RunContext

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import released


def test_an_imported_model_draws_a_slide_by_its_grid(tmp_path):
    torch.save(released.make_checkpoint(8)[0], tmp_path / "weights.ckpt")
    card, _ = import_zoomldm(tmp_path / "weights.ckpt", tmp_path / "bundle")
    cells_of(224, card.grid.cell_um, card.grid.encoder_mpp)  # what UNI looks at: all of a cell
    about = {"encoder": card.grid.encoder, "cell_um": 128.0, "encoder_mpp": 0.5, "width_um": 256.0, "height_um": 256.0}
    cells = np.random.default_rng(0).normal(size=(12, 2, 2))
    with new_grid(tmp_path / "x.wsz", GridFile(**about), cells.shape) as writer:
        writer.write(0, cells, np.ones((2, 2), bool))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    settings = {"model": str(tmp_path / "bundle"), "size": (512, 512), "class_name": "Tissue", "mode": "shifted", "levels": 1}
    settings |= {"steps": 1, "workers": 1, "guidance": 0.0, "keep_run": True}
    generate(tmp_path / "a.ome.tiff", grid=tmp_path / "x.wsz", **settings)
    run = RunContext(tmp_path / "a.run")
    assert run.passes[-1].grid_window(Box(0, 0, 64, 64)).shape == (13, 1, 1)  # 128 um, a cell
    with pytest.raises(GridError, match="follows grids of encoder 'timm:hf-hub:MahmoodLab/uni' and draws none itself"):
        generate(tmp_path / "b.ome.tiff", **settings)
