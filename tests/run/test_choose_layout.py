"""The layout of a run: what the user should know of it."""

import json

import numpy as np
import pytest
import tifffile
from drawing import feature, square, write_layout
from PIL import Image
from runs import settings_of

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.errors import ConfigError, LayoutError
from wsigen.base.geometry import Box
from wsigen.grids.grid import GridFile
from wsigen.grids.wsz import new_grid
from wsigen.run.choose_layout import choose_layout, told_missed
from wsigen.run.config import RunConfig
from wsigen.run.generate import generate
from wsigen.run.prepare import prepare

TABLE = ClassTable(
    (TissueClass("Glass", (255, 255, 255), True), TissueClass("Tumor", (200, 0, 0)), TissueClass("Other", (255, 200, 0)))
)


def write_grid(path, width, height):
    """A grid of mean colours of a slide of so many px of 0.5 um."""
    about = GridFile(encoder="mean-colour", cell_um=64.0, width_um=width / 2, height_um=height / 2)
    shape = (3, height // 128, width // 128)
    with new_grid(path, about, shape) as writer:
        writer.write(0, np.zeros(shape), np.ones(shape[1:], bool))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    return path


@pytest.mark.parametrize("kind", ["polygons", "label image"])
def test_the_layout_of_a_region_is_drawn_on_the_whole_slide(tmp_path, kind):
    """Also where the region begins at no multiple of a cell."""
    grid = write_grid(tmp_path / "x.wsz", 8192, 4096)
    if kind == "polygons":
        path = write_layout(tmp_path / "a.geojson", *(feature("Tumor", square(x, 1024, 512)) for x in (0, 5120)))
    else:
        labels = np.zeros((64, 128), np.uint8)
        labels[16:24, :8] = labels[16:24, 80:88] = 1
        path = tmp_path / "l.png"
        Image.fromarray(labels).save(path)
    config = RunConfig(grid=grid, layout=path, region=(5003, 1003, 2048, 1024))
    layout = choose_layout(config, tmp_path, TABLE, 0.5).layout
    expected = np.zeros((1024, 2048), np.uint8)
    expected[21:533, 117:629] = 1
    assert (layout.height, layout.width) == expected.shape
    np.testing.assert_array_equal(layout.class_map(Box(0, 0, 1024, 2048), 1), expected)
    np.testing.assert_array_equal(layout.class_map(Box(0, 0, 128, 256), 8), expected[4::8, 4::8])


@pytest.mark.parametrize("size", [None, (640, 640)])
def test_a_guessed_size_is_said_before_the_run_begins(bundle, tmp_path, size):
    notes = []

    def stop(stage):
        notes.append(stage.note)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a.ome.tiff", watch=stop, **settings_of(bundle, tmp_path, size=size))
    (note,) = notes
    assert ("608x640 px are guessed" in note and "--size" in note) == (size is None)


def test_a_drawing_is_as_large_as_the_reference_or_grid_it_lies_on(tmp_path):
    path = write_layout(tmp_path / "a.geojson", feature("Tumor", square(64, 64, 512)))
    Image.new("RGB", (900, 700)).save(tmp_path / "r.png")
    grid = write_grid(tmp_path / "x.wsz", 2048, 1024)
    for followed, size in (({"reference": tmp_path / "r.png"}, (700, 900)), ({"grid": grid}, (1024, 2048))):
        chosen = choose_layout(RunConfig(layout=path, **followed), tmp_path, TABLE, 0.5)
        assert (chosen.layout.height, chosen.layout.width) == size
        assert not any("guessed" in note for note in chosen.notes)
    Image.fromarray(np.ones((600, 600), np.uint8)).save(tmp_path / "l.png")
    config = RunConfig(layout=tmp_path / "l.png", reference=tmp_path / "r.png")
    assert choose_layout(config, tmp_path, TABLE, 0.5).layout.width == 600


def test_a_reference_that_is_stretched_is_told(bundle, tmp_path):
    Image.new("RGB", (900, 700)).save(tmp_path / "r.png")
    told = {}
    for size in (None, (1800, 1400), (900, 900)):
        settings = settings_of(bundle, tmp_path, size=size, reference=tmp_path / "r.png")
        prepared = prepare(RunConfig(**settings), tmp_path / "a.ome.tiff")
        told[size] = "\n".join(prepared.notes)
        assert (prepared.spec.slide.width, prepared.spec.slide.height) == (size or (900, 700))
    assert "its pixels are taken for those of the slide" in told[None]
    assert "another shape, 900x700 px on a slide of 900x900 px" in told[900, 900]
    assert not told[1800, 1400]


@pytest.mark.parametrize(
    "names", ["Necrosis=Other,Region*=,Positive=", {"necrosis": "Other", "Region*": None, "Positive": None, "Fat": None}]
)
def test_classes_of_a_layout_are_renamed_and_left_out(tmp_path, names):
    sides = {"Tumor": 640, "Necrosis: old": 320, "Positive": 64, "Region*": 600}
    path = write_layout(tmp_path / "a.geojson", *(feature(name, square(0, 0, side)) for name, side in sides.items()))
    (tmp_path / "s.yaml").write_text("layout: a.geojson\nlayout-names: " + json.dumps(names))
    for config in (RunConfig(layout=path, layout_names=names), RunConfig.read(tmp_path / "s.yaml")):
        chosen = choose_layout(config, tmp_path, TABLE, 0.5)
        cells = chosen.layout.class_map(Box(0, 0, 80, 80), 8)
        assert [(cells == i).sum() for i in range(3)] == [0, 80**2 - 40**2, 40**2]
        unused = [note for note in chosen.notes if "nothing is of class 'Fat', which 'layout_names' speaks of" in note]
        assert len(unused) == (not isinstance(names, str))
        assert config.identity()["layout_names"]["Region*"] is None


def test_annotations_too_small_for_a_cell_are_told(tmp_path):
    ground, line = feature("Other", square(0, 0, 640)), [[100, 161], [400, 161], [400, 163], [100, 163]]
    small = [feature("Tumor", ring) for ring in (square(97, 97, 2), square(201, 201, 2), line)]
    path = write_layout(tmp_path / "a.geojson", ground, *small, feature("Tumor", square(300, 300, 9)))
    config = RunConfig(layout=path, size="640x640")
    layout = choose_layout(config, tmp_path, TABLE, 0.5).layout
    (note,) = told_missed(config, layout, TABLE, 8, 0.5)
    assert "a.geojson: 3 of Tumor too small or too thin for the class map's cells of 8 px (4 um)" in note
    assert not told_missed(config, layout, TABLE, 2, 0.5)


def test_a_label_image_is_not_stretched_against_its_own_um(tmp_path):
    """At an um/px that is stated it is as large as the slide; one in its file that says otherwise is told."""
    labels = np.ones((256, 256), np.uint8)
    Image.fromarray(labels).save(tmp_path / "l.png")
    with pytest.raises(LayoutError, match=r"256 x 256 px at --layout-mpp 2 is of 1024 x 1024 px of the slide, which has 2048"):
        choose_layout(RunConfig(layout=tmp_path / "l.png", layout_mpp=2.0, size="2048x2048"), tmp_path, TABLE, 0.5)
    for size, mpp in (("1024x1024", 2.0), ("1020x1024", 2.0), ("2048x2048", None), (None, 2.0)):
        choose_layout(RunConfig(layout=tmp_path / "l.png", layout_mpp=mpp, size=size), tmp_path, TABLE, 0.5)

    about = {"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "l.ome.tiff", labels, metadata=about)
    said = {}
    for how in ({}, {"layout_mpp": 1.0}, {"size": "512x512"}, {"size": "1024x1024"}):
        config = RunConfig(layout=tmp_path / "l.ome.tiff", **how)
        said[str(how)] = choose_layout(config, tmp_path, TABLE, 0.5).notes
    note = "l.ome.tiff: says 1 um/px, but its pixels are {} um on the slide; give --layout-mpp 1"
    assert list(said.values()) == [(note.format(0.5),), (), (), (note.format(2),)]


def test_names_that_a_label_image_does_not_have_are_told(tmp_path):
    Image.fromarray(np.ones((64, 64), np.uint8)).save(tmp_path / "l.png")
    config = RunConfig(layout=tmp_path / "l.png", size="640x640", layout_names="Tumour=Other,Tumor=Other")
    (note,) = choose_layout(config, tmp_path, TABLE, 0.5).notes
    assert note == "l.png: nothing is of class 'Tumour', which 'layout_names' speaks of"


def test_a_background_that_is_not_used_is_told_and_its_name_known(tmp_path):
    chosen = choose_layout(RunConfig(class_name="Tumor", background="Other", size="600x600"), tmp_path, TABLE, 0.5)
    assert "background 'Other' is not used" in chosen.notes[0]
    for class_name in ("Tumor", None):
        with pytest.raises(ConfigError, match=r"unknown class 'Othre'.*did you mean 'Other'"):
            choose_layout(RunConfig(class_name=class_name, background="Othre", size="600x600"), tmp_path, TABLE, 0.5)


def test_nuclei_of_a_layout(tmp_path):
    cell = feature("Tumor", square(64, 64, 512))
    cell["nucleusGeometry"] = feature("", square(128, 128, 256))["geometry"]
    path = write_layout(tmp_path / "a.geojson", cell)
    chosen = choose_layout(RunConfig(layout=path, size="640x640", nuclei="other"), tmp_path, TABLE, 0.5)
    cells = chosen.layout.class_map(Box(0, 0, 80, 80), 8)
    assert [(cells == i).sum() for i in range(3)] == [80**2 - 64**2, 64**2 - 32**2, 32**2]
    with pytest.raises(ConfigError, match=r"setting 'nuclei': unknown class 'Nucleus'"):
        choose_layout(RunConfig(layout=path, nuclei="Nucleus"), tmp_path, TABLE, 0.5)
    with pytest.raises(ConfigError, match="give the file with --layout"):
        RunConfig(size="600x600", nuclei="Other")


def test_names_that_lead_nowhere(tmp_path):
    path = write_layout(tmp_path / "a.geojson", feature("Tumor", square(0, 0, 640)))
    with pytest.raises(ConfigError, match=r"setting 'layout_names': unknown class 'Tumour'"):
        choose_layout(RunConfig(layout=path, layout_names="a=Tumour"), tmp_path, TABLE, 0.5)
    with pytest.raises(ConfigError, match="'layout_names': 'Tumor' has no '='"):
        RunConfig(layout=path, layout_names="Tumor")
    with pytest.raises(ConfigError, match="give the file with --layout"):
        RunConfig(size="600x600", layout_names="a=b")
