"""A slide follows a grid that the user gives, or its reference's; a grid that cannot be followed is one line."""

import json
import warnings
import zipfile

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from runs import interrupt_in_the_middle, settings_of

from wsigen.base.errors import ConfigError, GridError, RunError
from wsigen.base.geometry import Box
from wsigen.grids.compress import compress
from wsigen.grids.grid import GridFile
from wsigen.grids.opening import open_grid
from wsigen.grids.picture import describe_grid, grid_picture
from wsigen.grids.wsz import new_grid
from wsigen.run.generate import generate, resume
from wsigen.run.tasks.context import RunContext
from wsigen.storage.files import sha256

SIZE = (640, 584)
UM = (320.0, 292.0)  # at the tiny bundles' 0.5 um/px


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "p.png"
    cells = np.random.default_rng(0).integers(0, 256, (20, 22, 3)).astype(np.uint8)
    Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC).save(path)
    return path


def write(path, shape=(3, 73, 80), width_um=UM[0], height_um=UM[1], known=True, value=0.1, encoder="mean-colour", cell_um=4.0):
    about = GridFile(encoder=encoder, cell_um=cell_um, width_um=width_um, height_um=height_um)
    with new_grid(path, about, shape) as writer:
        writer.write(0, np.full(shape, value), np.full(shape[1:], known))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    return path


def test_a_compressed_slide_holds_the_mean_colours_of_its_cells(picture, tmp_path):
    compress(picture, tmp_path / "x.wsz", cell_um=4.0, mpp=0.5)
    grid = open_grid(tmp_path / "x.wsz")
    values, known = grid.window(Box(0, 0, 73, 80), 4.0)
    pixels = np.asarray(Image.open(picture), dtype=float)
    means = pixels.reshape(73, 8, 80, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1) / 127.5 - 1
    assert known.all()
    assert np.abs(values - means).max() < 1.1 / 127.5
    with zipfile.ZipFile(tmp_path / "x.wsz") as file:
        assert "overview.jpg" in file.namelist()


def test_a_region_is_the_slide_of_that_part_of_the_grid(grid_bundle, picture, tmp_path):
    """The cells of the region, cut out into a file of their own, give the same slide."""
    compress(picture, tmp_path / "x.wsz", cell_um=4.0, mpp=0.5)
    cells = open_grid(tmp_path / "x.wsz").values[:, 8:72, 16:80]
    about = GridFile(encoder="mean-colour", cell_um=4.0, width_um=256.0, height_um=256.0)
    with new_grid(tmp_path / "part.wsz", about, cells.shape) as writer:
        writer.write(0, cells, np.ones(cells.shape[1:], dtype=bool))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    settings = settings_of(grid_bundle, tmp_path, levels=1) | {"size": None, "layout": None}
    region = generate(tmp_path / "a.ome.tiff", grid=tmp_path / "x.wsz", region="128,64,512,512", **settings)
    part = generate(tmp_path / "b.ome.tiff", grid=tmp_path / "part.wsz", **settings)
    assert region.level0_sha256 == part.level0_sha256


def test_a_run_of_one_region_is_not_gone_on_with_as_another(grid_bundle, picture, tmp_path):
    compress(picture, tmp_path / "x.wsz", cell_um=4.0, mpp=0.5)
    settings = settings_of(grid_bundle, tmp_path, levels=1, steps=1) | {"size": None, "layout": None}
    settings |= {"grid": tmp_path / "x.wsz"}
    interrupt_in_the_middle(tmp_path / "a.ome.tiff", settings | {"region": "0,0,512,512"}, after=2)
    with pytest.raises(RunError, match=r"holds another run \(region\.0: 128 here, 0 in the run\)"):
        generate(tmp_path / "a.ome.tiff", **settings, region="128,0,512,512")
    assert resume(tmp_path / "a.run").open().dimensions == (512, 512)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"region": "128,64,512,600", "size": None}, "reaches beyond the slide of .*x.wsz, 640x584 px"),
        ({"region": "128,64,512", "size": None}, "'128,64,512' is not X,Y,WIDTH,HEIGHT"),
        ({"region": (0, 0, 512, 512), "size": (512, 512)}, "leave --size out"),
        ({"region": (0, 0, 512, 512), "size": None, "grid": None}, "give --grid FILE"),
    ],
)
def test_a_wrong_region_is_one_line(grid_bundle, picture, tmp_path, given, said):
    compress(picture, tmp_path / "x.wsz", cell_um=4.0, mpp=0.5)
    settings = settings_of(grid_bundle, tmp_path) | {"grid": tmp_path / "x.wsz", "layout": None} | given
    with pytest.raises((ConfigError, GridError), match=said):
        generate(tmp_path / "a.ome.tiff", **settings)


def test_a_reference_is_followed_as_its_grid_is(grid_bundle, picture, tmp_path):
    settings = settings_of(grid_bundle, tmp_path, levels=1)
    reference = generate(tmp_path / "a.ome.tiff", reference=picture, **settings)
    compress(picture, tmp_path / "x.wsz", cell_um=4.0, size_um=UM)
    given = generate(tmp_path / "b.ome.tiff", grid=tmp_path / "x.wsz", **settings)
    drawn = generate(tmp_path / "c.ome.tiff", **settings)
    assert given.level0_sha256 == reference.level0_sha256 != drawn.level0_sha256
    assert [p.plan.grid_from for p in RunContext(tmp_path / "b.run").passes] == ["given"]


def test_an_unknown_grid_is_none(grid_bundle, tmp_path):
    settings = settings_of(grid_bundle, tmp_path, levels=1)
    generate(tmp_path / "a.ome.tiff", grid=write(tmp_path / "x.wsz", known=False, value=np.nan), **settings)
    pass_ = RunContext(tmp_path / "a.run").passes[-1]
    assert (pass_.grid_window(pass_.plan.grid.canvas) == 0).all()


def test_a_run_goes_on_with_its_own_copy_of_the_grid(grid_bundle, tmp_path):
    settings = settings_of(grid_bundle, tmp_path, levels=1)
    file = write(tmp_path / "x.wsz")
    whole = generate(tmp_path / "a.ome.tiff", grid=file, **settings).level0_sha256

    def stop(stage):
        if stage.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "b.ome.tiff", grid=file, watch=stop, **settings)
    write(file, value=0.9)
    assert resume(tmp_path / "b.run").level0_sha256 == whole


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"encoder": "other"}, r"is of encoder 'other'; the model follows 'mean-colour' \(model 'tiny-class-map'\)"),
        ({"cell_um": 8.0}, "has cells of 8 um; the model was told cells of 4 um at most"),
        ({"width_um": 500.0}, "is of a slide of 500x292 um, this one has 320x292 um; give --size 1000x584"),
        ({"value": np.nan}, "not finite"),
        ({"shape": (4, 73, 80)}, "4 numbers a cell"),
    ],
)
def test_a_grid_that_cannot_be_followed_is_refused(grid_bundle, tmp_path, what, message):
    with pytest.raises(GridError, match=message):
        generate(tmp_path / "a.ome.tiff", grid=write(tmp_path / "x.wsz", **what), **settings_of(grid_bundle, tmp_path))
    assert not (tmp_path / "a.run").exists()


def test_a_model_that_follows_no_grids_is_refused(bundle, tmp_path):
    with pytest.raises(GridError, match="follows no grids"):
        generate(tmp_path / "a.ome.tiff", grid=write(tmp_path / "x.wsz"), **settings_of(bundle, tmp_path))


@pytest.mark.parametrize("damage", ["text", "path", "truncated", "attributes", "twice"])
def test_a_file_that_is_no_grid_is_one_line(tmp_path, damage):
    file = write(tmp_path / "x.wsz")
    if damage == "text":
        file.write_text("no zip")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "attributes":
        content = {}
        with zipfile.ZipFile(file) as old:
            content = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(file, "w") as new:
            for name, data in content.items():
                new.writestr(name, data.replace(b'"cell_um"', b'"cell_xx"'))
    else:
        with zipfile.ZipFile(file, "a") as more, warnings.catch_warnings(action="ignore"):
            more.writestr("overview.jpg" if damage == "twice" else "../../evil", b"x")
    with pytest.raises(GridError, match=str(file)) as caught:
        open_grid(file)
    assert "\n" not in str(caught.value)


def rewritten(file, change, packed=zipfile.ZIP_STORED):
    """The file with some of its entries changed, and packed."""
    with zipfile.ZipFile(file) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w", packed) as new:
        for name, data in change(content).items():
            new.writestr(name, data)


def without(part):
    return lambda content: {name: data for name, data in content.items() if not name.startswith(f"{part}/c/")}


def metadata(**changes):
    def change(content):
        for name, values in changes.items():
            there = json.loads(content[f"{name}/zarr.json"])
            content[f"{name}/zarr.json"] = json.dumps({**there, **values}).encode()
        return content

    return change


def tiny_chunks(shape):
    return {"name": "regular", "configuration": {"chunk_shape": [1] * len(shape)}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {**c, "values/c/0/0/0": bytes(imagecodecs.zstd_encode(bytes(10**7)))}, "says it takes 10000000 bytes"),
        (lambda c: {**c, "values/c/0/0/0": b"garbage"}, "says it takes inf bytes"),
        (lambda c: {**c, "zarr.json": c["zarr.json"] + b" " * 10**6}, "zarr.json has 1000"),
        (lambda c: {**c, **{f"values/c/{n}/9/9": b"" for n in range(50_000)}}, "a zip of more than 40,000 files"),
        (metadata(values={"chunk_grid": tiny_chunks((3, 73, 80))}), "chunks of"),
        (metadata(values={"shape": [3, 9000, 9000]}, known={"shape": [9000, 9000]}), "chunks of"),
        (metadata(known={"codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]}), "bytes, gzip"),
        (lambda c: {**c, "zarr.json": c["zarr.json"].replace(b"4.0", b"1e-300")}, "cell_um"),
        (without("values"), r"cells are missing \(values/c/0/0/0\).*; make it anew with 'wsigen compress'"),
        (without("known"), r"cells are missing \(known/c/0/0\)"),
    ],
)
def test_a_grid_that_would_take_gigabytes_or_hours_is_refused(tmp_path, change, message):
    """Before a cell is read: chunks that unpack to more than their cells, and so many that reading never ends."""
    file = write(tmp_path / "x.wsz")
    rewritten(file, change)
    with pytest.raises(GridError, match=message):
        open_grid(file)


def test_a_grid_is_not_packed_by_its_zip(tmp_path):
    """What is stored is as large as the file; what is packed may be a thousand times as large."""
    file = write(tmp_path / "x.wsz")
    rewritten(file, lambda content: content)
    open_grid(file)
    rewritten(file, lambda content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(GridError, match="is packed by the zip"):
        open_grid(file)


def test_cells_that_are_all_zero_or_unknown_are_no_missing_cells(tmp_path):
    grid = open_grid(write(tmp_path / "x.wsz", value=0.0, known=False))
    values, known = grid.window(Box(0, 0, 73, 80), 4.0)
    assert not values.any()
    assert not known.any()


def test_cells_that_are_not_finite_are_refused_wherever_they_are_read(grid_bundle, tmp_path):
    file = write(tmp_path / "x.wsz")
    infinite = np.full((3, 73, 80), np.inf, np.float16).tobytes()
    rewritten(file, lambda c: {**c, "values/c/0/0/0": bytes(imagecodecs.zstd_encode(infinite))})
    with pytest.raises(GridError, match=f"{file}: its cells cannot be read.* not finite"):
        grid_picture(open_grid(file))
    with pytest.raises(GridError, match="not finite"):
        generate(tmp_path / "a.ome.tiff", grid=file, **settings_of(grid_bundle, tmp_path))
    assert not (tmp_path / "a.run").exists()


def test_what_a_grid_cannot_hold_is_refused_when_it_is_written(tmp_path):
    with pytest.raises(GridError, match=r"x\.wsz: cells of rows 0 to 72 are not finite, or beyond 65,504"):
        write(tmp_path / "x.wsz", value=1e6)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["grid", "reference"])
@pytest.mark.parametrize("left", ["another", "none"])
def test_a_run_follows_no_other_grid_than_its_own(grid_bundle, picture, tmp_path, given, left):
    """Neither when it goes on nor in a worker."""
    settings = settings_of(grid_bundle, tmp_path, levels=1)
    file = picture if given == "reference" else write(tmp_path / "x.wsz")
    generate(tmp_path / "a.ome.tiff", **{given: file}, **settings)
    kept = tmp_path / "a.run" / "wsigen-inputs" / "grid.wsz"
    assert RunContext(tmp_path / "a.run").spec.given_grid == sha256(kept)
    kept.unlink()
    if left == "another":
        write(kept, value=0.9)
    with pytest.raises(RunError, match=r"the grid .*(missing|not the run's own|has changed)"):
        resume(tmp_path / "a.run")
    with pytest.raises(RunError, match=r"the grid .*(missing|not the run's own)"):
        _ = RunContext(tmp_path / "a.run").given_grid


def test_what_a_grid_says_of_itself_moves_no_cursor(tmp_path):
    file = tmp_path / "x.wsz"
    about = GridFile(encoder="\x1b[2J", cell_um=4.0, width_um=320.0, height_um=292.0, source="\x1b]0;x\x07")
    with new_grid(file, about, (3, 73, 80)) as writer:
        writer.write(0, np.zeros((3, 73, 80)), np.ones((73, 80), bool))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    assert all(line.isprintable() for line in describe_grid(file))


def test_a_grid_needs_a_size_in_um(picture, tmp_path):
    with pytest.raises(GridError, match="does not say its um/px; give it with --mpp"):
        compress(picture, tmp_path / "x.wsz")
    with pytest.raises(GridError, match="cell_um"):
        compress(picture, tmp_path / "x.wsz", mpp=0.5, cell_um=400)
    assert not (tmp_path / "x.wsz").exists()


def test_a_grid_and_a_reference_exclude_each_other(grid_bundle, picture, tmp_path):
    with pytest.raises(ConfigError, match="'grid' and 'reference'"):
        generate(tmp_path / "a.ome.tiff", grid="x.wsz", reference=picture, **settings_of(grid_bundle, tmp_path))


def test_a_feature_file_is_followed_and_kept(grid_bundle, tmp_path):
    h5py = pytest.importorskip("h5py")
    said = {"patch_size": 8, "patch_size_level0": 8, "target_magnification": 20, "level0_width": 640, "level0_height": 584}
    corners = [(x, y) for y in range(0, 576, 8) for x in range(0, 640, 8)]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.random.default_rng(0).uniform(-1, 1, (len(corners), 3)).astype(np.float32)
        file["features"].attrs["encoder"] = "mean-colour"
        file["coords"] = np.array(corners)
        file["coords"].attrs.update(said)
    settings = settings_of(grid_bundle, tmp_path, levels=1)
    given = generate(tmp_path / "a.ome.tiff", grid=tmp_path / "x.h5", **settings)
    compress(tmp_path / "x.h5", tmp_path / "x.wsz")
    assert generate(tmp_path / "b.ome.tiff", grid=tmp_path / "x.h5", **settings).level0_sha256 == given.level0_sha256
    assert RunContext(tmp_path / "a.run").given_grid.values.shape == (3, 73, 80)
    assert open_grid(tmp_path / "x.wsz").known[:].tolist() == [[True] * 80] * 72 + [[False] * 80]
