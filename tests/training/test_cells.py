"""Cells of whole images: windows anywhere, each the mean colours of its place, with its classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from wsigen.base.errors import DatasetError
from wsigen.dataset.dataset import Dataset, open_dataset
from wsigen.training.cells import CellStream, ImageCells, image_cells, whole_bases

CELL, SIDE, PX = 8, 16, 1024
MEAN, STD = np.zeros(3, np.float32), np.ones(3, np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A picture whose red is x / 4, whose green is y / 4; Tumor above y = 400, bare below y = 900, else unknown."""
    root = tmp_path_factory.mktemp("cells")
    y, x = np.mgrid[:PX, :PX]
    picture = np.stack([x // 4, y // 4, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(root / "a.png")
    features = [ring("Tumor", 0, 400), ring("Glass", 900, PX)]
    (root / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    settings = {
        "root": ".",
        "classes": [{"name": "Glass", "color": [240, 240, 240], "background": True}, {"name": "Tumor", "color": [200, 0, 0]}],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 1.0}],
        "patch_px": SIDE * CELL,
        "overlap_px": 0,
        "sources": [{"kind": "annotated", "images": "*.png", "mpp": 0.5}],
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(settings))
    return open_dataset(root / "dataset.yaml")


def ring(name: str, top: int, bottom: int) -> dict[str, object]:
    corners = [[0, top], [PX, top], [PX, bottom], [0, bottom], [0, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"classification": {"name": name}},
    }


@pytest.fixture(scope="module")
def cells(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ImageCells:
    return image_cells(dataset, tmp_path_factory.mktemp("made"), CELL)


def test_levels_are_made_of_the_finest_that_divides_them() -> None:
    assert whole_bases([0.5, 1.0, 1.3, 2.0]) == [(0, 1), (0, 2), (2, 1), (0, 4)]
    assert whole_bases([0.7, 1.4, 2.8]) == [(0, 1), (0, 2), (0, 4)]


@pytest.mark.parametrize(("level", "ratio"), [(0, 1), (1, 2)])
def test_a_window_is_the_mean_colours_and_classes_of_its_place(cells: ImageCells, level: int, ratio: int) -> None:
    y, x = 37, 90
    colours, classes = cells.window(0, level, (y, x), SIDE)
    assert colours.shape == (SIDE, SIDE, 3)
    step = CELL * ratio
    middle = (x * CELL + step * (np.arange(SIDE) + 0.5) - 0.5) / 4
    inside = x + SIDE * ratio <= PX // CELL
    columns = colours[0, :, 0].astype(float)
    assert np.abs(columns - middle)[: SIDE if inside else (PX // CELL - x) // ratio].max() < 1.0
    rows = (y * CELL + step * (np.arange(SIDE) + 0.5)) < 400
    assert ((classes == 1).all(axis=1) == rows).all()


def test_windows_lie_anywhere_and_show_their_class(dataset: Dataset, cells: ImageCells) -> None:
    """Positions are read from the colours: far more of them than patches, on no lattice."""
    stream = CellStream(cells, dataset.drawer("training", None, 0.0), SIDE, MEAN, STD, 0.0, seed=3)
    batch = stream.batch(0, 300)
    assert batch.latents.shape == (300, 3, SIDE, SIDE)
    assert set(batch.levels) == {0, 1}
    assert (batch.class_maps == 1).any(
        axis=(1, 2)
    ).mean() > 0.4  # half of the patches are drawn for it, half for the background
    fine = batch.latents[batch.levels == 0]
    corners = np.rint((fine[:, :2].min(axis=(2, 3)) + 1) * 127.5 * 4 / CELL).astype(int)
    assert len(set(map(tuple, corners))) > 100 > len(dataset.split_patches("training"))
    assert len(set(corners[:, 0] % SIDE)) > SIDE / 2
    again = CellStream(cells, dataset.drawer("training", None, 0.0), SIDE, MEAN, STD, 0.0, seed=3).batch(0, 20)
    assert (again.latents == batch.latents[:20]).all()
    jittered = CellStream(cells, dataset.drawer("training", None, 0.0), SIDE, MEAN, STD, 0.1, seed=3).batch(0, 20)
    assert (jittered.class_maps == again.class_maps).all()
    assert (jittered.latents != again.latents).any()


def test_patches_of_nothing_but_background_give_windows_of_tissue(dataset: Dataset, cells: ImageCells) -> None:
    """Labels of glass alone are enough: no class is waited for that is never drawn."""
    patches = dataset.split_patches("training")
    parts = (patches.counts[:, 0] > 0) & (patches.counts[:, 0] < SIDE**2) & (patches.counts[:, 1] == 0)
    edge = int(np.flatnonzero(parts)[0])

    class Edge:
        def draw(self, rng: np.random.Generator) -> tuple[int, int]:
            return edge, 0

    batch = CellStream(cells, Edge(), SIDE, MEAN, STD, 0.0, seed=1).batch(0, 20)  # type: ignore[arg-type]  # it draws as a Drawer
    assert (batch.class_maps != 0).any(axis=(1, 2)).all()


def test_cells_are_made_once(dataset: Dataset, cells: ImageCells, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(next(iter(cells.files.values())).filename)).parent  # type: ignore[attr-defined]
    monkeypatch.setattr("wsigen.training.cells._made", lambda *_: pytest.fail("made again"))
    again = image_cells(dataset, folder, CELL)
    assert {pair: cells.files[pair].tobytes() for pair in again.files} == {p: f.tobytes() for p, f in cells.files.items()}


def test_damaged_cells_are_named(dataset: Dataset, tmp_path: Path) -> None:
    image_cells(dataset, tmp_path, CELL)
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"npy: damaged.*made anew"):
        image_cells(dataset, tmp_path, CELL)


def test_an_image_that_cannot_be_read_is_named(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsigen.base.errors import ImageError

    def broken(*_: object) -> None:
        raise ImageError("a.png: damaged")

    monkeypatch.setattr("wsigen.training.cells._made", broken)
    with pytest.raises(DatasetError, match=r"a\.png.*damaged"):
        image_cells(dataset, tmp_path, CELL)
    assert not list(tmp_path.iterdir())
