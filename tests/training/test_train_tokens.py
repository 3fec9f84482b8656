"""Denoisers that are told an encoder's grid: by tokens through a summariser, or by channels; from images to slides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image
from streams import WORDS, Latents, card_of_kind, denoiser_settings
from tiny_bundles import tiny_vq

import wsigen
from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import ConfigError, DatasetError, TrainingError
from wsigen.base.geometry import Box
from wsigen.dataset.latents import LatentBatch
from wsigen.grids.compress import compress
from wsigen.models.bundle import check_bundle
from wsigen.models.card import BundleCard, GridCondition
from wsigen.models.summariser import build_summariser
from wsigen.training import image_grids
from wsigen.training.autoencoder import build_vae
from wsigen.training.conditions import Conditioner
from wsigen.training.denoiser import build_schedule, build_unet
from wsigen.training.denoiser_task import Denoiser, DenoiserTask
from wsigen.training.grid_settings import EncodedGrid
from wsigen.training.grids import worn_windows
from wsigen.training.loop import train
from wsigen.training.recipes import AutoencoderNetwork, DenoiserRecipe
from wsigen.training.snapshot import identity_of

UNET = {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8}
LOOP = {"steps": 3, "batch": 4, "sample_every": 3, "learning_rate": 1e-3}
VIT = {"side": 4, "width": 16, "layers": 1, "heads": 2, "mlp": 16}
CONV = {"kind": "conv", "side": 4, "width": 16, "groups": 4, "out_side": 2}


class Means:
    """An extractor without a network."""

    name, version, sha256, dimension, side_px = "means", "1", "ab" * 32, 6, 16
    seen = 0

    def features(self, images: np.ndarray) -> np.ndarray:
        Means.seen += len(images)
        return np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1).astype(np.float32)

    def probabilities(self, features: np.ndarray) -> None:
        return None


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_grids, "encoder_named", lambda name, device: Means())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with drawings and an untrained autoencoder."""
    root = tmp_path_factory.mktemp("tokens")
    for seed, name in enumerate("ab"):
        noise = np.random.default_rng(seed).integers((150, 60, 120), (230, 140, 200), (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC).save(root / f"{name}.png")
        geometry = {"type": "Polygon", "coordinates": [[[0, 0], [512, 0], [512, 300], [0, 300], [0, 0]]]}
        feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "Tumor"}}}
        (root / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    dataset = {
        "root": ".",
        "classes": [{"name": "Tumor", "color": [200, 0, 0]}],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 1.0}],
        "patch_px": 128,
        "sources": [{"kind": "annotated", "images": "*.png", "mpp": 0.5}],
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    torch.manual_seed(0)
    tiny_vq().save_pretrained(root / "vq4")
    build_vae(AutoencoderNetwork(channels=(8, 8, 8, 8), latent_channels=4, norm_groups=4), 64).save_pretrained(root / "vae")
    return root


def recipe(folder: Path, name: str, grid: dict[str, Any], **more: Any) -> Path:
    content = {"dataset": "dataset.yaml", "network": UNET, "loop": LOOP, "autoencoder": "vae", "bundle": WORDS}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**content, "grid": {"encoder": "means", "cell_um": 32.0, **grid}, **more}))
    return file


@pytest.mark.parametrize(
    ("name", "grid"),
    [("vit", {"summariser": VIT}), ("conv", {"summariser": CONV, "p_unknown": 0}), ("channels", {"told": "channels"})],
    ids=["transformer", "convolutions on codes of factor 4", "channels"],
)
def test_from_images_to_a_slide_that_follows_a_grid(folder: Path, tmp_path: Path, name: str, grid: dict[str, Any]) -> None:
    file = recipe(folder, name, grid, latent_variants=2, autoencoder="vq4" if name == "conv" else "vae")
    Means.seen = 0
    bundle = wsigen.train_denoiser(file, out=tmp_path / "out").result
    assert bundle is not None
    assert Means.seen == 2 * 8 * 8  # each image once, 256 um in cells of 32
    assert len(list((tmp_path / "out" / "grids").iterdir())) == 2
    card = check_bundle(bundle)
    told = card.grid
    assert told is not None
    assert (told.encoder, told.encoder_sha256, told.cell_um, told.required) == ("means", "ab" * 32, 32.0, name == "conv")
    assert told.parts == (() if name == "channels" else (2, 4))
    assert (bundle / "summariser").is_dir() == (name != "channels")
    assert list((tmp_path / "out" / "samples").glob("*.png"))
    x = tmp_path / "x.wsz"
    compress(folder / "a.png", x, encoder=Means(), cell_um=32.0, mpp=0.5)
    settings = {"model": str(bundle), "class_name": "Tumor", "steps": 1, "levels": 1, "grid": x}
    assert Path(wsigen.generate(tmp_path / "s.ome.tiff", **settings).slide).is_file()


def test_grids_may_lie_in_a_folder(folder: Path, tmp_path: Path) -> None:
    files = tmp_path / "grids"
    files.mkdir()
    for name in "ab":
        compress(folder / f"{name}.png", files / f"{name}.wsz", encoder=Means(), cell_um=32.0, mpp=0.5)
    Means.seen = 0
    given = {"encoder": None, "cell_um": None, "files": str(files), "summariser": VIT}
    bundle = wsigen.train_denoiser(recipe(folder, "files", given), out=tmp_path / "out").result
    assert bundle is not None
    told = check_bundle(bundle).grid
    assert told is not None
    assert (told.encoder, told.cell_um, told.dimension, told.parts, Means.seen) == ("means", 32.0, 6, (2, 4), 0)
    compress(folder / "b.png", files / "b.wsz", encoder=Means(), cell_um=16.0, mpp=0.5)
    with pytest.raises(DatasetError, match=r"b.png: its grid is of 'means' .* cells of 16 um, that of a.png"):
        wsigen.train_denoiser(recipe(folder, "files", given), out=tmp_path / "mixed")
    (files / "b.wsz").unlink()
    with pytest.raises(DatasetError, match=r"has no grid of b.png \(b.wsz or .h5\)"):
        wsigen.train_denoiser(recipe(folder, "files", given), out=tmp_path / "lacking")


def test_grids_go_by_names_that_images_have_alone(folder: Path, tmp_path: Path) -> None:
    """Another file in their folder, or a copy of it, changes nothing; two images of one name would share a grid."""
    from wsigen.dataset.dataset import open_dataset

    data, files = tmp_path / "data", tmp_path / "grids"
    for place in (data / "tumour", data / "stroma", files):
        place.mkdir(parents=True)
    for name in "ab":
        shutil.copy(folder / f"{name}.png", data / "tumour")
        shutil.copy(folder / f"{name}.geojson", data / "tumour")
        compress(folder / f"{name}.png", files / f"{name}.wsz", encoder=Means(), cell_um=32.0, mpp=0.5)
    content = yaml.safe_load((folder / "dataset.yaml").read_text())
    content["sources"] = [{**content["sources"][0], "images": "*/*.png"}]
    (data / "dataset.yaml").write_text(yaml.safe_dump(content))
    settings = EncodedGrid.model_validate({"files": str(files), "summariser": VIT})
    key = image_grids.grid_key(settings, open_dataset(data / "dataset.yaml"))
    (files / "notes.txt").write_text("of another slide")
    (files / "a.wsz").touch()
    assert image_grids.grid_key(settings, open_dataset(data / "dataset.yaml")) == key
    for suffix in ("png", "geojson"):
        shutil.copy(folder / f"b.{suffix}", data / f"stroma/a.{suffix}")
    with pytest.raises(DatasetError, match=r"grids go by the names of images, and .*a.png and .*a.png have one"):
        image_grids.image_grids(open_dataset(data / "dataset.yaml"), settings, tmp_path / "kept", 8)


def test_windows_are_those_of_the_patches_turned_with_them(folder: Path, tmp_path: Path) -> None:
    from wsigen.dataset.dataset import open_dataset

    dataset = open_dataset(folder / "dataset.yaml")
    settings = EncodedGrid.model_validate({"encoder": "means", "cell_um": 32.0, "summariser": VIT})
    grids = image_grids.image_grids(dataset, settings, tmp_path, 8)
    patches = dataset.split_patches("training")
    row = int(np.flatnonzero((patches.level == 1) & (patches.y > 0))[0])
    cells = grids.grids[int(patches.member[row])].values
    y, x = int(patches.y[row]) // 32, int(patches.x[row]) // 32
    under = cells[:, y : y + 4, x : x + 4].astype(np.float32)
    expected = (under - under.mean(0)) / under.std(0, ddof=1)
    window = grids.window(row, 0)
    assert window[:-1] == pytest.approx(expected, abs=1e-4)
    assert (window[-1] == 1).all()
    assert np.array_equal(grids.window(row, 1), np.rot90(window, axes=(1, 2)))
    fine = grids.window(int(np.flatnonzero(patches.level == 0)[0]), 0)
    assert fine.shape == window.shape
    assert (fine[:, 2:] == 0).all()
    assert (fine[-1, :2, :2] == 1).all()


def test_few_files_of_grids_are_open_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {position: tmp_path / f"{position}.wsz" for position in range(8)}
    for file in files.values():
        compress(folder / "a.png", file, encoder=Means(), cell_um=32.0, mpp=0.5)
    held = image_grids.KeptGrids(files)
    monkeypatch.setattr(image_grids, "KEPT_BYTES", 0)
    monkeypatch.setattr(image_grids, "OPEN_FILES", 2)
    read = image_grids.KeptGrids(files)
    box = Box(0, 0, 3, 3)
    for grids, most in ((held, 0), (read, 2)):
        assert grids.dimensions == {6}
        windows = [grid.window(box, 50.0)[0] for grid in grids.values()]
        assert len([f for f in psutil.Process().open_files() if f.path.startswith(str(tmp_path))]) <= most
        assert all(np.array_equal(window, held[0].window(box, 50.0)[0]) for window in windows)


def test_a_process_waits_while_another_makes_grids(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsigen.dataset.dataset import open_dataset

    monkeypatch.setattr("wsigen.dataset.latents.LOOK_S", 0.01)
    settings = EncodedGrid.model_validate({"encoder": "means", "cell_um": 32.0, "summariser": VIT})
    there: list[int] = []

    def share(which: int) -> None:
        meet = lambda: there.append(len([f for f in tmp_path.iterdir() if f.name[0] in "ab"]))  # noqa: E731
        image_grids.image_grids(open_dataset(folder / "dataset.yaml"), settings, tmp_path, 8, share=(which, 2), meet=meet)

    other = Timer(1.0, share, (1,))
    other.start()
    share(0)
    other.join()
    assert there == [2, 2]


def test_parts_are_cells_to_the_power_of_two_below() -> None:
    parts = [image_grids.parts_of(128.0 * 2**level, 128.0, 8) for level in range(8)]
    assert parts == [1, 2, 4, 8, 8, 8, 8, 8]  # the published levels
    assert [image_grids.parts_of(64.0, cell, 8) for cell in (128.0, 64.0, 21.0, 9.0)] == [1, 1, 2, 4]


def test_hidden_windows_make_tokens_of_zeros() -> None:
    torch.manual_seed(0)
    config = {"_class_name": "ViTSummariser", "dimension": 6, "levels": 2, **VIT}
    network = Denoiser(torch.nn.Identity(), build_summariser(config))
    windows = torch.randn(4, 7, 4, 4)
    windows[:, -1] = 1
    told = worn_windows(windows, EncodedGrid(encoder="x", noise=0, p_unknown=0.5), np.random.default_rng(3))
    hidden = (told[:, -1] == 0).flatten(1).all(dim=1)
    assert 0 < hidden.sum() < 4
    assert (told[~hidden] == windows[~hidden]).all()
    tokens = network._tokens(told, torch.tensor([0, 1, 0, 1]), torch.tensor([2, 4, 2, 4]))
    assert (tokens[hidden] == 0).all()
    alone = network._tokens(told[~hidden], torch.tensor([0, 1, 0, 1])[~hidden], torch.tensor([2, 4, 2, 4])[~hidden])
    torch.testing.assert_close(alone, tokens[~hidden])


class Told(Latents):
    """Latents that are +1 or -1 everywhere; nothing but the grid says which."""

    def batch(self, step: int, count: int) -> LatentBatch:
        rng = np.random.default_rng((3, step))
        sign = rng.choice([-1.0, 1.0], size=(count, 1, 1, 1)).astype(np.float32)
        latents = sign + 0.1 * rng.standard_normal((count, 4, 8, 8), dtype=np.float32)
        windows = np.ones((count, 7, 4, 4), np.float32)
        windows[:, :3] *= sign
        maps = np.full((count, 8, 8), UNKNOWN, np.uint8)
        return LatentBatch(latents, maps, rng.integers(0, 2, count), np.ones(count, bool), windows)


def card_with(grid: GridCondition) -> BundleCard:
    return card_of_kind("none").model_copy(update={"grid": grid})


@pytest.mark.parametrize("summariser", [VIT, CONV], ids=["vit", "conv"])
def test_a_denoiser_learns_from_its_tokens(tmp_path: Path, summariser: dict[str, Any]) -> None:
    """At the highest noise a prediction of v is that of the latents: without the grid it can be no better than their mean."""
    grid = {"encoder": "means", "noise": 0.1, "p_unknown": 0.1, "summariser": summariser}
    loop = {"steps": 90, "batch": 16, "learning_rate": 5e-3, "ema": 0.0}
    settings = DenoiserRecipe.model_validate(denoiser_settings(conditioning={"kind": "none"}, grid=grid, loop=loop))
    told = GridCondition(told="tokens", encoder="means", cell_um=16.0, dimension=6, parts=(2, 4))
    torch.manual_seed(0)
    unet = build_unet(settings.network, card_with(told), 8, 16)
    assert settings.summariser is not None
    network = build_summariser(settings.summariser.config(6, 2))

    def tell(batch: LatentBatch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch.windows is not None
        return torch.from_numpy(batch.latents), worn_windows(torch.from_numpy(batch.windows), settings.grid, rng)

    conditioner = Conditioner("none", 2, 2, True, None, told.parts)
    task = DenoiserTask(settings, settings.bundle, unet, build_schedule(settings), conditioner, Told(), None, tell, network)
    train(task, settings.loop, tmp_path, identity_of(settings.decisive()))
    batch = {**task.draw(1000, 0)}
    batch["steps"] = torch.full_like(batch["steps"], 990)
    batch["noisy"] = torch.randn(batch["noisy"].shape, generator=torch.Generator().manual_seed(1))
    signs = Told().batch(1000, 16).latents.mean((1, 2, 3), keepdims=True)
    batch["target"] = -torch.from_numpy(signs).expand(batch["noisy"].shape)  # v at abar 0 is -x0
    batch["grids"] = torch.from_numpy(Told().batch(1000, 16).windows)
    modules = {name: player.module.eval() for name, player in task.players().items()}
    with torch.no_grad():
        with_grid = float(task.loss("model", modules, batch, 0.0)[0])
        without = float(task.loss("model", modules, {**batch, "grids": torch.zeros_like(batch["grids"])}, 0.0)[0])
    assert with_grid < 0.3 < 0.8 < without


def test_a_summariser_is_fine_tuned_with_its_denoiser(folder: Path, tmp_path: Path) -> None:
    first = wsigen.train_denoiser(recipe(folder, "first", {"summariser": VIT}), out=tmp_path / "first").result
    again = recipe(folder, "again", {"summariser": VIT}, start=str(first), autoencoder=str(first))
    assert wsigen.train_denoiser(again, out=tmp_path / "again").result is not None
    other = recipe(folder, "other", {"summariser": {**VIT, "layers": 2}}, start=str(first), autoencoder=str(first))
    with pytest.raises(TrainingError, match="its summariser has layers 1, the recipe asks for 2"):
        wsigen.train_denoiser(other, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("grid", "more", "message"),
    [
        ({"encoder": None, "cell_um": None, "told": "tokens"}, {}, "mean colours are told by channels"),
        ({"told": "channels", "summariser": VIT}, {}, "'summariser' is of grids that are told by tokens"),
        ({"summariser": {**VIT, "side": 6}}, {}, "side 6 is no power of two"),
        ({"summariser": {**VIT, "heads": 3}}, {}, "width 16 is no multiple of heads 3"),
        ({"summariser": VIT}, {"quarter_share": 0.5}, "quarter_share cuts crops in four"),
        ({"cell_sides": [2], "summariser": VIT}, {}, "'cell_sides' is of mean colours"),
    ],
)
def test_recipes_that_contradict_themselves(
    folder: Path, tmp_path: Path, grid: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        wsigen.train_denoiser(recipe(folder, "wrong", grid, **more), out=tmp_path / "out")
