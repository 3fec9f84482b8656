"""`wsigen train mask` from slides to a layout: the command, what it refuses, and `generate --mask-model`."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset.dataset_making import CLASSES, settings, slide, tiles
from drawing import feature, square, write_layout

import wsigen
from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import BundleError, ConfigError, DatasetError, RunError
from wsigen.cli import main
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.settings import read_settings
from wsigen.run.config import make_config
from wsigen.run.generate import generate, resume
from wsigen.training.mask_data import read_maps
from wsigen.training.recipes import MaskRecipe, read_recipe

SLIDES = {"solid": "Tumor", "fibrous": "Stroma"}
SOURCE = {"kind": "annotated", "images": "slides", "mpp": 0.5, "background": "Glass"}
LEAST = 6
SUBTYPES = {"csv": "subtypes.csv"}


def make_slides(root):
    """Three slides a subtype, 640 x 768 px at 0.5 um/px, each with a square of its subtype's class on glass."""
    rows = []
    for k, (subtype, name) in enumerate(SLIDES.items()):
        for i in range(3):
            stem = f"{subtype[0]}{i}"
            corner, side = 80 + 40 * i, 400 - 20 * i
            slide(root / "slides" / f"{stem}.png", tissue=(corner, corner, corner + side, corner + side), seed=10 * k + i)
            write_layout(root / "slides" / f"{stem}.geojson", feature(name, square(corner, corner, side)))
            rows.append(f"{stem}.png,{subtype}")
    (root / "subtypes.csv").write_text("\n".join(["image,subtype", *rows, ""]))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides").resolve()
    make_slides(folder)
    dataset = {
        "classes": CLASSES,
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": 128,
        "overlap_px": 0,
        "sources": [SOURCE],
        "subtypes": SUBTYPES,
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    recipe = {
        "dataset": "dataset.yaml",
        "side": 16,
        "cell_um": 24.0,
        "least_slides": LEAST,
        "p_unc": 0.2,
        "network": {"channels": [16, 32], "layers": 1, "norm_groups": 4, "head_dim": 8},
        "sampling": {"steps": 12},
        "loop": {"steps": 120, "batch": 16, "learning_rate": 5.0e-3, "ema": 0.95, "sample_every": 120},
    }
    (folder / "mask.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["wsigen", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def masks(root):
    """Trained by the command."""
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "train", "mask", root / "mask.yaml", "--out", root / "masks") == 0
    return root / "masks"


@pytest.fixture
def drawn(bundle, masks):
    return {
        "model": str(bundle), "layout": "sample", "subtype": "solid", "mask_model": masks, "size": "768x640", "steps": 1,
        "workers": 1, "seed": 3,
    }  # fmt: skip


def test_the_command_leaves_what_the_others_leave(masks):
    names = {p.name for p in masks.iterdir()}
    assert {"checkpoint.pt", "losses.csv", "samples", "mask"} <= names
    rows = [float(line.split(",")[1]) for line in (masks / "losses.csv").read_text().splitlines()[1:]]
    assert np.mean(rows[-20:]) < 0.5 * np.mean(rows[:10])
    card = yaml.safe_load((masks / "mask" / "mask.yaml").read_text())
    assert card["subtypes"] == ["fibrous", "solid"]
    assert sorted(map(sorted, card["adjacent"])) == [["Glass", "Stroma"], ["Glass", "Tumor"]]
    assert (card["side"], card["cell_um"], card["steps"]) == (16, 24.0, 12)


def test_generate_draws_from_it_and_says_so(drawn, tmp_path, masks):
    result = generate(tmp_path / "a.ome.tiff", **drawn)
    assert result.layout.startswith(f"sampled by the mask model {masks.name}, subtype 'solid'")
    assert result.area_px["Tumor"] > 0.1 * 768 * 640
    assert result.area_px["Tumor"] > 4 * result.area_px["Stroma"]
    source = json.loads(result.manifest.read_text())["drawn_layout"]
    assert (source["by"], source["subtype"]) == ("mask model", "solid")
    moved = shutil.copytree(masks / "mask", tmp_path / "elsewhere")
    again = generate(tmp_path / "b.ome.tiff", **{**drawn, "mask_model": moved})
    assert json.loads(again.manifest.read_text())["drawn_layout"] == source
    assert again.level0_sha256 == result.level0_sha256
    other = generate(tmp_path / "c.ome.tiff", **{**drawn, "seed": 4})
    assert json.loads(other.manifest.read_text())["drawn_layout"]["cells_sha256"] != source["cells_sha256"]
    ruled = {**drawn, "mask_model": None, "subtype": "balanced"}
    assert generate(tmp_path / "d.ome.tiff", **ruled).layout == "sampled by the procedural sampler, subtype 'balanced'"


def test_resume_needs_the_same_mask_model(drawn, tmp_path, masks):
    def stop(stage):
        if stage.name.startswith("denoise"):
            raise KeyboardInterrupt

    own = shutil.copytree(masks / "mask", tmp_path / "own")
    settings = {**drawn, "mask_model": own}
    whole = generate(tmp_path / "a.ome.tiff", **settings).level0_sha256
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "b.ome.tiff", watch=stop, **settings)
    card = own / "mask.yaml"
    text = card.read_text()
    card.write_text(text.replace("steps: 12", "steps: 11"))
    with pytest.raises(RunError, match=r"not the run's \(drawn_layout\.(cells_sha256|mask_model)"):
        resume(tmp_path / "b.run")
    with pytest.raises(RunError, match=r"holds another run .*drawn_layout"):
        generate(tmp_path / "b.ome.tiff", **settings)
    card.rename(tmp_path / "away.yaml")
    with pytest.raises(BundleError, match="no mask model"):
        resume(tmp_path / "b.run")
    card.write_text(text)
    assert resume(tmp_path / "b.run").level0_sha256 == whole


def test_settings_that_do_not_go_together(tmp_path, drawn):
    with pytest.raises(ConfigError, match="'mask_model' belongs to a layout that is drawn"):
        make_config({"class_name": "Tumor", "size": "600x600", "mask_model": tmp_path})
    with pytest.raises(ConfigError, match="'subtypes' and 'mask_model' exclude each other"):
        make_config({**drawn, "subtypes": tmp_path / "own.yaml"})
    with pytest.raises(BundleError, match=r"no mask model \(no mask.yaml there or in mask/\)"):
        generate(tmp_path / "a.ome.tiff", **{**drawn, "mask_model": tmp_path})
    (tmp_path / "c.yaml").write_text("layout: sample\nsubtype: solid\nmask_model: masks\nsize: 600x600\n")
    assert make_config({}, tmp_path / "c.yaml").mask_model == tmp_path / "masks"


def test_maps_are_the_slides_and_the_unknown_stays_unknown(tmp_path):
    make_slides(tmp_path)
    tiles(tmp_path / "tiles", 1, 1)
    slide(tmp_path / "plain" / "u.png")
    with (tmp_path / "subtypes.csv").open("a") as file:
        file.write("u.png,rare\n")
    sources = [
        {"kind": "annotated", "images": "slides", "mpp": 0.5},
        {"kind": "tiles", "folder": "tiles", "mpp": 0.5},
        {"kind": "unlabelled", "images": "plain", "mpp": 0.5},
    ]
    dataset = open_dataset(settings(tmp_path.resolve(), *sources, subtypes=SUBTYPES), tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"'rare' has no labelled slide to train on \(1 without labels, 1 in all\)"):
        read_maps(MaskRecipe(dataset="c.yaml", least_slides=6, cell_um=8.0), dataset)
    recipe = MaskRecipe(dataset="c.yaml", least_slides=6, cell_um=8.0, subtypes=("fibrous", "solid"))
    data = read_maps(recipe, dataset)
    assert data.subtypes == ("fibrous", "solid")
    assert [e.subtype for e in data.examples] == [0, 0, 0, 1, 1, 1]
    for example, i in zip(data.examples, [0, 1, 2, 0, 1, 2], strict=True):
        assert example.cells.shape == (40, 48)  # 640 x 768 px at 0.5 um/px in cells of 8 um
        corner, side = 80 + 40 * i, 400 - 20 * i
        centres = (np.arange(48) + 0.5) * 16
        on = (centres >= corner) & (centres < corner + side)
        expected = np.where(on[:40, None] & on, 1 - example.subtype, UNKNOWN)
        assert np.array_equal(example.cells, expected)
    assert read_maps(recipe.model_copy(update={"cell_um": None}), dataset).cell_um == 32.0  # 64 px of 0.5 um
    assert "6 are larger than 16 cells and cut: cell_um 24" in data.describe(16)
    assert "cut" not in data.describe(48)


@pytest.mark.parametrize(
    ("dataset", "recipe", "match"),
    [
        ({"subtypes": None}, {}, "names no subtypes"),
        ({}, {"least_slides": 7}, "6 labelled slides with a subtype, a mask model needs 7"),
        ({}, {"subtypes": ["solid", "fibrou"]}, r"no slide is of subtype 'fibrou' \(did you mean 'fibrous'\?\)"),
        ({}, {"subtypes": ["solid", "solid"]}, "are one name"),
    ],
)
def test_what_a_dataset_lacks(root, tmp_path, dataset, recipe, match):
    config = settings(root, SOURCE, **{"classes": CLASSES, "subtypes": SUBTYPES, **dataset})
    with pytest.raises(DatasetError, match=match) as caught:
        read_maps(MaskRecipe.model_validate({"dataset": "c.yaml", "least_slides": 2, **recipe}), open_dataset(config, tmp_path))
    assert "\n" not in str(caught.value)


def test_the_small_configuration_is_one():
    folder = Path(wsigen.__file__).parents[1] / "configs"
    small = read_recipe(MaskRecipe, folder / "mask-small.yaml")
    assert read_settings(small.dataset).subtypes is not None


def test_a_recipe_that_is_wrong_is_one_line(root, monkeypatch, capsys):
    text = (root / "mask.yaml").read_text()
    for old, new, words in (
        ("least_slides", "least_slide", ["least_slide", "did you mean 'least_slides'"]),
        ("side: 16", "side: 15", ["side 15 is no multiple of 2"]),
    ):
        (root / "wrong.yaml").write_text(text.replace(old, new))
        assert run(monkeypatch, "train", "mask", root / "wrong.yaml", "--out", root / "wrong") == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert all(word in lines[0] for word in words)
    assert not (root / "wrong").exists()
