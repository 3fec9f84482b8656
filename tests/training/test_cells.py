"""Cells of whole images: windows anywhere, each the mean colours of its place, with its classes."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from wsigen.base.errors import DatasetError, ImageError
from wsigen.base.geometry import Box
from wsigen.dataset.dataset import Dataset, open_dataset
from wsigen.dataset.members import Member
from wsigen.training import cells as cells_module
from wsigen.training.cells import UNREADABLE, CellStream, ImageCells, image_cells, whole_bases, window

CELL, SIDE, PX = 8, 16, 1024
MEAN, STD = np.zeros(3, np.float32), np.ones(3, np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A picture whose red is x / 4, whose green is y / 4; Tumor above y = 400, bare below y = 900, else unknown."""
    return written(tmp_path_factory.mktemp("cells"), {"a": PX})


def written(root: Path, sides: dict[str, int], mpp: float = 0.5, coarse_mpp: float = 1.0) -> Dataset:
    for name, px in sides.items():
        y, x = np.mgrid[:px, :px]
        picture = np.stack([x // 4, y // 4, np.full_like(x, 90)], axis=-1).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{name}.png")
        features = [ring("Tumor", 0, 400), ring("Glass", 900, PX)] if px == PX else [ring("Tumor", 0, px // 2, px)]
        (root / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    settings = {
        "root": ".",
        "classes": [{"name": "Glass", "color": [240, 240, 240], "background": True}, {"name": "Tumor", "color": [200, 0, 0]}],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": coarse_mpp}],
        "patch_px": SIDE * CELL,
        "overlap_px": 0,
        "sources": [{"kind": "annotated", "images": "*.png", "mpp": mpp}],
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(settings))
    return open_dataset(root / "dataset.yaml")


def ring(name: str, top: int, bottom: int, px: int = PX) -> dict[str, object]:
    corners = [[0, top], [px, top], [px, bottom], [0, bottom], [0, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"classification": {"name": name}},
    }


@pytest.fixture(scope="module")
def cells(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ImageCells:
    return image_cells(dataset, tmp_path_factory.mktemp("made"), CELL)


def test_levels_are_made_of_the_finest_that_divides_them() -> None:
    assert whole_bases({0: 0.5, 1: 1.0, 2: 1.3, 3: 2.0}) == {0: (0, 1), 1: (0, 2), 2: (2, 1), 3: (0, 4)}
    assert whole_bases({1: 1.4, 3: 2.8}) == {1: (1, 1), 3: (1, 2)}


@pytest.mark.parametrize(("level", "ratio"), [(0, 1), (1, 2)])
def test_a_window_is_the_mean_colours_and_classes_of_its_place(cells: ImageCells, level: int, ratio: int) -> None:
    y, x = 37, 90
    colours, classes = window(*cells.kept(0, level), (y, x), SIDE)
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
    folder = next(iter(cells.files.values())).parent
    monkeypatch.setattr("wsigen.training.cells._make", lambda *_: pytest.fail("made again"))
    assert image_cells(dataset, folder, CELL).files == cells.files


def test_damaged_cells_are_named(dataset: Dataset, tmp_path: Path) -> None:
    image_cells(dataset, tmp_path, CELL)
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"npy: damaged.*made anew"):
        image_cells(dataset, tmp_path, CELL)


def unreadable(monkeypatch: pytest.MonkeyPatch, where: Callable[[Box], bool]) -> None:
    read = Member.image

    def image(self: Member, box: Box, mpp: float) -> object:
        if where(box):
            raise ImageError("a tile is damaged")
        return read(self, box, mpp)

    monkeypatch.setattr(Member, "image", image)


def test_an_image_that_cannot_be_read_is_named(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch, lambda box: True)
    with pytest.raises(DatasetError, match=r"a\.png.*damaged"):
        image_cells(dataset, tmp_path, CELL)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_read_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsigen.training.cells.READ_CELLS", 2 * SIDE)
    dataset = replace(written(tmp_path, {"a": PX}), skip_bad=True)
    corner = Box(0, 0, 2 * SIDE * CELL, 2 * SIDE * CELL)
    unreadable(monkeypatch, lambda box: box == corner)
    cells = image_cells(dataset, tmp_path / "made", CELL)
    kept, _ = cells.kept(0, 0)
    assert (kept[: 2 * SIDE, : 2 * SIDE, 3] == UNREADABLE).all()
    assert (kept[..., 3] == UNREADABLE).sum() == (2 * SIDE) ** 2
    batch = CellStream(cells, dataset.drawer("training", None, 0.0), SIDE, MEAN, STD, 0.0, seed=3).batch(0, 100)
    assert (batch.class_maps != UNREADABLE).all()
    fine = batch.latents[batch.levels == 0]
    corners = np.rint((fine[:, :2].min(axis=(2, 3)) + 1) * 127.5 * 4 / CELL)
    assert (corners.max(axis=1) >= 2 * SIDE - 1).all()  # none touches the place


def test_images_are_read_where_they_show_patches_alone(tmp_path: Path) -> None:
    """A picture at 4 um/px is not enlarged to 0.5 um/px, where it has no patch."""
    dataset = written(tmp_path, {"a": 256}, mpp=4.0, coarse_mpp=4.0)
    assert set(dataset.split_patches("training").level.tolist()) == {1}
    cells = image_cells(dataset, tmp_path / "made", CELL)
    assert cells.bases == {(0, 1): (1, 1)}
    assert cells.kept(0, 1)[0].shape == (256 // CELL, 256 // CELL, 4)


def test_more_images_than_files_may_be_open(tmp_path: Path) -> None:
    dataset = written(tmp_path, {f"{i:02}": 256 for i in range(80)})
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, hard))
    try:
        cells = image_cells(dataset, tmp_path / "made", CELL)
        batch = CellStream(cells, dataset.drawer("training", None, 0.0), SIDE, MEAN, STD, 0.0, seed=3).batch(0, 200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(batch.latents) == 200


def test_processes_share_the_images_and_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bases for each image, one of 0.5 and one of 1.3 um/px: each process makes both of its own images."""
    dataset = written(tmp_path, {"a": PX, "b": PX, "c": PX}, coarse_mpp=1.3)
    monkeypatch.setattr("wsigen.dataset.latents.LOOK_S", 0.01)
    by_rank: dict[str, set[str]] = {"0": set(), "1": set()}
    make, at_meeting = cells_module._make, []

    def slow(member: Member, *args: Any) -> None:
        rank = threading.current_thread().name
        by_rank[rank].add(member.name)
        sleep(0.5 if rank == "1" else 0.0)
        make(member, *args)

    monkeypatch.setattr(cells_module, "_make", slow)

    def process(rank: int) -> None:
        image_cells(dataset, tmp_path / "made", CELL, (rank, 2), lambda: at_meeting.append(len(made())))

    def made() -> list[Path]:
        return [path for path in (tmp_path / "made").glob("*.npy") if not path.name.startswith(".")]

    threads = [threading.Thread(target=process, args=(rank,), name=str(rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert by_rank == {"0": {"a.png", "c.png"}, "1": {"b.png"}}
    assert at_meeting == [6, 6]  # nobody meets before all is there


def test_a_process_whose_reads_all_fail_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = replace(written(tmp_path, {f"{i:02}": 256 for i in range(50)}), skip_bad=True)
    unreadable(monkeypatch, lambda box: True)
    monkeypatch.setattr("wsigen.training.cells.await_others", lambda *_: None)
    with pytest.raises(DatasetError, match="reads failed"):
        image_cells(dataset, tmp_path / "made", CELL, (1, 2))


def test_unreadable_places_are_no_cells_of_a_strict_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = written(tmp_path, {"a": PX})
    with monkeypatch.context() as broken:
        broken.setattr("wsigen.training.cells.READ_CELLS", 2 * SIDE)
        unreadable(broken, lambda box: box.y0 == box.x0 == 0)
        image_cells(replace(strict, skip_bad=True), tmp_path / "made", CELL)
    kept, _ = image_cells(strict, tmp_path / "made", CELL).kept(0, 0)
    assert (kept[..., 3] != UNREADABLE).all()


def test_a_full_disk_is_an_error_and_leaves_nothing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            if len(data) > 1000:
                raise OSError(28, "No space left on device")
            return int(self.file.write(data))

    def open_full(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        file = opened(self, mode, *args, **more)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space"):
        image_cells(dataset, tmp_path, CELL)
    assert not list(tmp_path.iterdir())
