"""A network that draws grids: told the next coarser cells, trained on images, drawn from by `generate`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from streams import WORDS

import wsigen
from wsigen.base.errors import BundleError, ConfigError, TrainingError
from wsigen.models.card import Level, make_card, read_card
from wsigen.models.model import load_model
from wsigen.run.config import RunConfig
from wsigen.run.prepare import prepare
from wsigen.training.autoencoder import build_vae
from wsigen.training.grid_settings import GridTelling
from wsigen.training.grids import coarser_cells, enlarged, level_ratios, told_grid
from wsigen.training.recipes import AutoencoderNetwork

UNET = {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8}
LOOP = {"steps": 3, "batch": 4, "sample_every": 3, "learning_rate": 1e-3}


def cells(count=6, side=8):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 3, side, side), dtype=np.float32))


def test_enlarged_cells_are_the_means_of_their_blocks() -> None:
    x = cells(2)
    large = enlarged(x, 4)
    assert large.shape == x.shape
    torch.testing.assert_close(large[1, 2, 4:, :4], x[1, 2, 4:, :4].mean().expand(4, 4))
    assert enlarged(x, 1) is x


def test_the_coarsest_level_is_told_nothing() -> None:
    x, levels = cells(3), np.array([0, 1, 2])
    told, possible = coarser_cells(x, levels, [2, 4])
    assert possible.tolist() == [True, True, False]
    torch.testing.assert_close(told[0], enlarged(x[:1], 2)[0])
    torch.testing.assert_close(told[1], enlarged(x[1:2], 4)[0])


def test_levels_are_told_as_far_as_they_are_whole_multiples() -> None:
    levels = [Level(name=str(mpp), mpp=mpp) for mpp in (0.5, 1.0, 4.0, 7.0)]
    assert level_ratios(levels) == [2, 4]


def test_what_is_hidden_is_zero_and_not_known() -> None:
    x, possible = cells(200), np.arange(200) % 2 == 0
    grid = told_grid(x, possible, GridTelling(noise=0.2, p_unknown=0.3), np.random.default_rng(1))
    known = grid[:, 3, 0, 0].numpy() == 1
    assert not known[~possible].any()
    assert 0.5 < known[possible].mean() < 0.9
    assert (grid[~torch.from_numpy(known)] == 0).all()
    worn = (grid[:, :3] - x)[torch.from_numpy(known)].flatten(1).std(dim=1)
    assert 0 <= worn.min() < 0.05 < 0.15 < worn.max() < 0.25
    assert (told_grid(x, possible, GridTelling(noise=0, p_unknown=0), np.random.default_rng(1))[::2, :3] == x[::2]).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with drawings, an untrained autoencoder, recipes."""
    root = tmp_path_factory.mktemp("grids")
    for seed, name in enumerate("ab"):
        noise = np.random.default_rng(seed).integers(60, 200, (96, 96, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((768, 768), Image.Resampling.BICUBIC).save(root / f"{name}.png")
        ring = [[0, 0], [768, 0], [768, 400], [0, 400], [0, 0]]
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": "Tumor"}},
        }
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
    build_vae(AutoencoderNetwork(channels=(8, 8, 8, 8), latent_channels=4, norm_groups=4), 64).save_pretrained(root / "vae")
    common = {"dataset": "dataset.yaml", "network": UNET, "loop": LOOP}
    denoiser = {**common, "autoencoder": "vae", "bundle": WORDS, "grid": {"noise": 0.1, "cell_sides": [1, 2]}}
    (root / "denoiser.yaml").write_text(yaml.safe_dump(denoiser))
    (root / "blind.yaml").write_text(yaml.safe_dump({k: v for k, v in denoiser.items() if k != "grid"}))
    grid = {
        **common,
        "bundle": "denoiser/bundle",
        "quarter_share": 0.5,
        "larger": 2,
        "sampling": {"steps": 2, "coarse_steps": 3},
    }
    (root / "grid.yaml").write_text(yaml.safe_dump(grid))
    wsigen.train_denoiser(root / "denoiser.yaml", out=root / "denoiser")
    wsigen.train_grid(root / "grid.yaml", out=root / "grid")
    return root


def test_a_network_of_grids_learns(folder: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    recipe["loop"] = {"steps": 150, "batch": 8, "learning_rate": 1e-2, "ema": 0.9, "sample_every": 0}
    (folder / "longer.yaml").write_text(yaml.safe_dump(recipe))
    wsigen.train_grid(folder / "longer.yaml", out=tmp_path / "grid")
    with (tmp_path / "grid/losses.csv").open() as file:
        losses = [float(row["mse"]) for row in csv.DictReader(file)]
    assert np.mean(losses[-40:]) < 0.9 * np.mean(losses[:10])


def test_a_bundle_with_its_network_of_grids_draws_and_denoises(folder: Path, tmp_path: Path) -> None:
    card = read_card(folder / "grid" / "bundle")
    assert card.grid is not None
    assert card.grid.network is not None
    assert card.grid.network.crops == (32, 16, 8)
    assert (np.abs(card.grid.mean) < 1).all()
    model = load_model(folder / "grid" / "bundle")
    assert model.grid is not None
    assert card.drawing is not None
    assert card.drawing.input_channels == 3 + 2 + 4
    assert model.grid.unet.config.in_channels == 4 * card.drawing.input_channels  # it sees 2 x 2 cells as one
    assert list((folder / "grid").glob("samples/*.png"))
    settings = {"model": str(folder / "grid" / "bundle"), "class_name": "Tumor", "size": "640x512"}
    steps = {}
    slide = wsigen.generate(tmp_path / "s.ome.tiff", **settings, watch=lambda stage: steps.setdefault(stage.name, stage))
    assert Path(slide.slide).is_file()
    assert sum("grid" in name for name in steps) == 2


def test_a_denoiser_that_is_trained_on_is_told_cells_as_its_start_was(folder: Path, tmp_path: Path) -> None:
    """Of other images the network would see shifted colours, and its grids could not be drawn by the start's network."""
    dataset = yaml.safe_load((folder / "dataset.yaml").read_text())
    dataset["sources"][0]["images"] = "b.png"
    (folder / "other.yaml").write_text(yaml.safe_dump(dataset))
    recipe = yaml.safe_load((folder / "denoiser.yaml").read_text()) | {"dataset": "other.yaml"}
    cards = {}
    for name, more in (("alone", {}), ("on", {"start": "denoiser/bundle"})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe | more))
        wsigen.train_denoiser(folder / f"{name}.yaml", out=tmp_path / name)
        cards[name] = read_card(tmp_path / name / "bundle")
    start = read_card(folder / "denoiser" / "bundle")
    assert cards["on"].grid == start.grid != cards["alone"].grid
    assert cards["on"].latent == start.latent != cards["alone"].latent


def test_coarse_levels_have_steps_of_their_own(folder: Path) -> None:
    card = read_card(folder / "grid" / "bundle")
    config = RunConfig(class_name="Tumor", size="640x512", model=str(folder / "grid" / "bundle"))
    passes = prepare(config, Path("slide.ome.tiff")).spec.passes
    assert [(p.network, p.level, p.steps) for p in passes] == [("grid", 1, 3), ("grid", 0, 2), ("image", 0, card.steps)]


def test_training_goes_on_from_a_published_network(folder: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    still = {**recipe, "start": "grid/bundle", "loop": {**LOOP, "steps": 1, "learning_rate": 1e-12}}
    (folder / "on.yaml").write_text(yaml.safe_dump(still))
    wsigen.train_grid(folder / "on.yaml", out=tmp_path / "on")
    before, after = (
        load_file(root / "bundle/grid/unet/diffusion_pytorch_model.safetensors") for root in (folder / "grid", tmp_path / "on")
    )
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)


def test_cells_may_be_larger_than_those_of_the_slide(folder: Path, tmp_path: Path) -> None:
    """A network of the coarser level alone begins as that level of the one before, and its cells are twice as wide."""
    dataset = yaml.safe_load((folder / "dataset.yaml").read_text())
    (folder / "coarse.yaml").write_text(yaml.safe_dump({**dataset, "levels": dataset["levels"][1:]}))
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    still = {"start": "grid/bundle", "dataset": "coarse.yaml", "loop": {**LOOP, "steps": 1, "learning_rate": 1e-12}}
    (folder / "larger.yaml").write_text(yaml.safe_dump({**recipe, **still}))
    wsigen.train_grid(folder / "larger.yaml", out=tmp_path / "on")
    card = read_card(tmp_path / "on/bundle")
    assert card.grid is not None
    assert card.grid.network is not None
    assert [level.mpp for level in card.grid.network.levels] == [1.0]
    both, one = (
        load_file(root / "bundle/grid/unet/diffusion_pytorch_model.safetensors")["class_embedding.weight"]
        for root in (folder / "grid", tmp_path / "on")
    )
    assert torch.allclose(one, both[1:], atol=1e-6)
    settings = {"model": str(tmp_path / "on/bundle"), "class_name": "Tumor", "size": "640x512"}
    passes = prepare(RunConfig(**settings), Path("slide.ome.tiff")).spec.passes
    assert [(p.network, p.cell_px, p.width, p.height) for p in passes] == [("grid", 16, 40, 32), ("image", 8, 80, 64)]
    assert Path(wsigen.generate(tmp_path / "s.ome.tiff", **settings).slide).is_file()


def test_cells_that_the_denoiser_was_never_told_are_refused(folder: Path, tmp_path: Path) -> None:
    dataset = yaml.safe_load((folder / "dataset.yaml").read_text())
    dataset["levels"] = [{"name": "coarse", "mpp": 2.0}]
    (folder / "wide.yaml").write_text(yaml.safe_dump(dataset))
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    (folder / "told.yaml").write_text(yaml.safe_dump({**recipe, "dataset": "wide.yaml"}))
    with pytest.raises(TrainingError, match=r"4 times as wide as latent px of .*, whose denoiser was told sides of 1, 2"):
        wsigen.train_grid(folder / "told.yaml", out=tmp_path / "on")
    assert not (tmp_path / "on").exists()


def test_blocks_that_do_not_divide_a_crop_are_refused_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    """Crops are of 16 cells, and of 8 where a share of them is quartered."""
    denoiser = yaml.safe_load((folder / "denoiser.yaml").read_text())
    for sides, quarters in (([1, 3], 0.0), ([16], 0.5)):
        changes = {"grid": {"cell_sides": sides}, "quarter_share": quarters}
        (folder / "sides.yaml").write_text(yaml.safe_dump({**denoiser, **changes}))
        with pytest.raises(
            TrainingError, match=rf"grid.cell_sides': {sides[-1]} does not divide the {16 // (1 + (quarters > 0))}"
        ):
            wsigen.train_denoiser(folder / "sides.yaml", out=tmp_path / "out")
    dataset = yaml.safe_load((folder / "dataset.yaml").read_text())
    dataset["levels"] = [{"name": "fine", "mpp": 0.5}, {"name": "thrice", "mpp": 1.5}]
    (folder / "thrice.yaml").write_text(yaml.safe_dump(dataset))
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    for changes, said in (
        ({"dataset": "thrice.yaml"}, "ratio of the um/px"),
        ({"telling": {"cell_sides": [5]}}, "telling.cell_sides"),
    ):
        (folder / "sides.yaml").write_text(yaml.safe_dump({**recipe, "sampling": {"noise": 0}, **changes}))
        with pytest.raises(TrainingError, match=f"{said}.* does not divide the 8 cells a side of a crop"):
            wsigen.train_grid(folder / "sides.yaml", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mpp", [0.3, 0.8])
def test_cells_that_are_no_whole_multiple_of_the_slides_are_refused(folder: Path, mpp: float) -> None:
    card = yaml.safe_load((folder / "grid/bundle/wsigen.yaml").read_text())
    card["grid"]["network"]["levels"] = [{"name": "odd", "mpp": mpp}]
    with pytest.raises(BundleError, match="whole multiple of the model's"):
        make_card(card, "card")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"start": "denoiser/bundle"}, "draws no grids"),
        ({"start": "grid/bundle", "network": {**UNET, "channels": [8, 24]}}, "another one than 'network' describes"),
        ({"start": "shifted"}, r"have the means of cells \[0.0, 0.0, 0.0\], those to be drawn \["),
    ],
)
def test_a_start_that_does_not_fit_is_refused(folder: Path, tmp_path: Path, change: dict[str, object], match: str) -> None:
    shutil.copytree(folder / "grid/bundle", folder / "shifted", dirs_exist_ok=True)
    card = yaml.safe_load((folder / "shifted/wsigen.yaml").read_text())
    card["grid"]["mean"] = [0.0, 0.0, 0.0]
    (folder / "shifted/wsigen.yaml").write_text(yaml.safe_dump(card))
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    (folder / "other.yaml").write_text(yaml.safe_dump({**recipe, **change}))
    with pytest.raises(TrainingError, match=match):
        wsigen.train_grid(folder / "other.yaml", out=tmp_path / "on")


def test_a_bundle_that_follows_no_grid_is_refused(folder: Path) -> None:
    wsigen.train_denoiser(folder / "blind.yaml", out=folder / "blind")
    (folder / "wrong.yaml").write_text((folder / "grid.yaml").read_text().replace("denoiser/bundle", "blind/bundle"))
    with pytest.raises(TrainingError, match="follows no grids"):
        wsigen.train_grid(folder / "wrong.yaml", out=folder / "wrong")


def test_grids_are_told_no_more_noise_than_their_network_was_trained_in(folder: Path) -> None:
    recipe = yaml.safe_load((folder / "grid.yaml").read_text())
    recipe |= {"telling": {"noise": 0.3}, "sampling": {"noise": 0.4}}
    (folder / "noisy.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match="more than telling"):
        wsigen.train_grid(folder / "noisy.yaml", out=folder / "noisy")
