"""What goes into an edited slide's file: the pixels of every window, whatever their number and size."""

import resource
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from slide_making import tissue

from wsigen.base.errors import OutputError
from wsigen.base.geometry import Box
from wsigen.editing.patches import patches_of
from wsigen.sampling.known import NEVER
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import open_image

SIDE = 256
FACTOR = 8
"""Px in a latent px."""


class Run:
    """A run in which everything is made anew but for the latents below some row."""

    def __init__(self, rows):
        self.spec = SimpleNamespace(passes=[SimpleNamespace(factor=FACTOR, cell_px=FACTOR)], glass=SimpleNamespace(index=None))
        self.layout = SimpleNamespace(class_map=lambda box, cell_px: np.zeros(box.shape, int))
        self.continued = SimpleNamespace(starts=lambda plan, box, bare: self._starts(box, rows))

    @staticmethod
    def _starts(box, rows):
        made = np.arange(box.y0, box.y1) < rows
        return np.broadcast_to(np.where(made, 0, NEVER)[:, None], box.shape)


@pytest.fixture
def placed(tmp_path):
    Image.fromarray(tissue(SIDE, SIDE, seed=1)).save(tmp_path / "slide.png")
    return PlacedImage(open_image(tmp_path / "slide.png"), (SIDE, SIDE), (0, 0))


def window(folder, number, seed, box, rows=SIDE):
    path = folder / f"window-{number}.png"
    rgb = tissue(*box.shape, seed=seed)
    Image.fromarray(rgb).save(path)
    return (path, box, Run(rows)), rgb


@contextmanager
def few_files(more):
    """So many files more than are open may be."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_pixels_and_masks_of_all_windows_come_back(tmp_path, placed, monkeypatch):
    monkeypatch.setattr("wsigen.editing.patches.CELL_PX", 48)
    upper, upper_rgb = window(tmp_path, 0, 5, Box(8, 16, 136, 256), rows=9)
    lower, lower_rgb = window(tmp_path, 1, 6, Box(160, 0, 256, 200))
    whole, mask = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), bool)
    for patch in patches_of([upper, lower], placed, tmp_path):
        whole[patch.box.slices] = patch.pixels
        assert not mask[patch.box.slices].any()
        mask[patch.box.slices] = patch.mask
    expected = np.zeros_like(mask)
    expected[8 : 8 + 9 * FACTOR, 16:256] = expected[160:256, 0:200] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(whole[8:80, 16:256], upper_rgb[:72])
    np.testing.assert_array_equal(whole[160:256, 0:200], lower_rgb)
    assert not patches_of([], placed, tmp_path)
    assert not patches_of([window(tmp_path, 2, 7, Box(0, 0, 64, 64), rows=0)[0]], placed, tmp_path)


def test_the_number_of_cells_and_windows_needs_no_more_open_files(tmp_path, placed, monkeypatch):
    monkeypatch.setattr("wsigen.editing.patches.CELL_PX", 16)
    corners = [(y, x) for y in range(0, SIDE, 64) for x in range(0, SIDE, 64)]
    windows = [window(tmp_path, n, n, Box(y, x, y + 64, x + 64))[0] for n, (y, x) in enumerate(corners)]
    with few_files(8):
        patches = patches_of(windows, placed, tmp_path)
    assert len(patches) == 16 * 16
    assert all(patch.mask.all() for patch in patches)


def test_a_full_disk_is_said_in_a_line(tmp_path, placed, monkeypatch):
    monkeypatch.setattr("wsigen.editing.patches.TemporaryFile", lambda dir: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(OutputError, match=r"new pixels cannot be kept there.*free disk space"):
        patches_of([window(tmp_path, 0, 5, Box(0, 0, SIDE, SIDE))[0]], placed, tmp_path)
