"""Which image and which unit a table speaks of."""

import unicodedata

import numpy as np
import pytest
from dataset.dataset_making import CLASSES, annotated, settings, slide, stained, tiles
from drawing import feature, square, write_layout
from scanner_files import write_mrxs

from wsigen.base.errors import DatasetError
from wsigen.base.geometry import Box
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.label_sources import find_annotations
from wsigen.dataset.tables import ImageNames, named_unit

NAMES = ["slides/A/1.svs", "slides/B/1.svs", "slides/B/2.ome.tif", "/far/3.tif"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("slides/A/1.svs", "slides/A/1.svs"),
        ("A/1", "slides/A/1.svs"),
        ("./slides\\A\\1.svs", "slides/A/1.svs"),
        ("/data/old/slides/B/1.svs", "slides/B/1.svs"),
        ("2.ome.tif", "slides/B/2.ome.tif"),
        ("2", "slides/B/2.ome.tif"),
        ("3", "/far/3.tif"),
        ("1.svs", None),
        ("C/1.svs", None),
        ("C/2.ome.tif", None),
        ("", None),
    ],
)
def test_one_name_is_the_end_of_the_other(written, name):
    assert ImageNames(NAMES).find(written) == name


def test_paths_count_from_the_tables_folder():
    assert ImageNames(NAMES, "slides/A").find("1.svs") == "slides/A/1.svs"
    assert ImageNames(NAMES, "tables").find("../slides/B/1.svs") == "slides/B/1.svs"
    assert ImageNames(NAMES, "tables").find("A/1.svs") == "slides/A/1.svs"


def test_units_in_names():
    assert {named_unit(n) for n in ("Centroid X µm", "x_um", "Y (μm)", "x [microns]", "X_micrometer")} == {"um"}
    assert {named_unit(n) for n in ("x_px", "Centroid X px", "pxl_col_in_fullres", "Pixels x")} == {"px"}
    assert {named_unit(n) for n in ("x", "Centroid X", "column", "sum", "umbra")} == {None}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("image,class,Centroid X µm,Centroid Y µm\na,Tumor,100,150\n", {}),
        ("image;class;Centroid X µm;Centroid Y µm\na;Tumor;100,0;150,0\n", {}),
        ("image\tclass\tCentroid X µm\tCentroid Y µm\na\tTumor: CD3\t100.0\t150.0\n", {}),
        ("image,class,Centroid X \u03bcm,Centroid Y \u03bcm\na,Tumor,100,150\n", {}),
        ("image,class,x,y\na,Tumor,100,150\n", {"unit": "um", "columns": {}}),
        ("image,class,x,y\na,Tumor,200,300\n", {"unit": "px", "columns": {}}),
        ("image,class,x_px,y_px\na,Tumor,200,300\n", {"columns": {"x": "x_px", "y": "y_px"}}),
    ],
)
def test_points_in_um_and_px(tmp_path, text, more):
    slide(tmp_path / "a.png")
    (tmp_path / "s.csv").write_bytes(text.encode("utf-8" if "\u03bc" in text else "cp1252"))
    source = {"kind": "points", "images": "a.png", "mpp": 0.5, "csv": "s.csv", "radius_um": 30}
    columns = {"x": "Centroid X µm", "y": "Centroid Y µm"}
    config = settings(tmp_path.resolve(), source | {"columns": columns} | more, classes=CLASSES[1:2])
    (member,) = open_dataset(config, tmp_path / "cache").members
    y, x = np.mgrid[4:640:8, 4:768:8]
    disc = (x - 200) ** 2 + (y - 300) ** 2 <= 60**2
    assert np.array_equal(member.class_map(Box(0, 0, 640, 768), 0.5) == 0, disc)


@pytest.mark.parametrize(
    ("header", "more", "match"),
    [
        ("x,y", {}, "'x' and 'y' do not say their unit; give 'unit: px'"),
        ("x,y", {"columns": {"x": "x_um", "y": "y_px"}}, "column 'x_um' says um and column 'y_px' says px"),
        ("x,y", {"columns": {"x": "x_um", "y": "y"}, "unit": "px"}, "column 'x_um' says um and 'unit' says px"),
    ],
)
def test_units_that_nobody_says_or_that_differ(tmp_path, header, more, match):
    slide(tmp_path / "a.png")
    (tmp_path / "s.csv").write_text("image,class,x,y,x_um,y_px\na,Tumor,1,1,1,1\n")
    source = {"kind": "points", "images": "a.png", "mpp": 0.5, "csv": "s.csv", "radius_um": 30} | more
    with pytest.raises(DatasetError, match=match):
        open_dataset(settings(tmp_path.resolve(), source), tmp_path / "cache")


def test_groups_by_paths_from_their_folder(tmp_path):
    tiles(tmp_path / "tiles", patients=2, each=2)
    names = sorted(p.relative_to(tmp_path / "tiles").as_posix() for p in (tmp_path / "tiles").rglob("*.png"))
    (tmp_path / "tiles" / "g.csv").write_text("image;group\n" + "".join(f"{n};{n[-8:-6]}\n" for n in names))
    source = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
    dataset = open_dataset(settings(tmp_path.resolve(), source, groups={"csv": "tiles/g.csv"}), tmp_path / "cache")
    assert {m.group for m in dataset.members} == {"P0", "P1"}
    with pytest.raises(DatasetError, match=r"finds nothing in 4 of 8 image names \('.*P1_0.png', .*'\)"):
        open_dataset(settings(tmp_path.resolve(), source, groups={"pattern": "P0"}), tmp_path / "cache")


def test_groups_that_miss_say_what_the_table_names(tmp_path):
    tiles(tmp_path / "tiles", patients=2, each=1)
    source = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
    (tmp_path / "g.csv").write_text("image,group\nP0.svs,1\nP1.svs,2\n")
    with pytest.raises(DatasetError, match=r"no 'group' for 4 of 4 .*; of its rows 'P0.svs', 'P1.svs' are no images"):
        open_dataset(settings(tmp_path.resolve(), source, groups={"csv": "g.csv"}), tmp_path / "cache")
    (tmp_path / "g.csv").write_text("image,group,group\nP0,1,2\n")
    with pytest.raises(DatasetError, match="2 columns are called 'group'"):
        open_dataset(settings(tmp_path.resolve(), source, groups={"csv": "g.csv"}), tmp_path / "cache")


def test_accents_may_be_written_in_two_ways(tmp_path):
    """macOS names files with the accent apart from its letter."""
    apart, one = (unicodedata.normalize(form, "Präparat") for form in ("NFD", "NFC"))
    for image, table in ((apart, one), (one, apart)):
        assert ImageNames([f"slides/{image}.svs"]).find(f"{table}.svs") == f"slides/{image}.svs"
        (tmp_path / f"{table}.geojson").touch()
        assert find_annotations(tmp_path, f"{image}.svs") == tmp_path / f"{table}.geojson"
        (tmp_path / f"{table}.geojson").unlink()


def test_annotations_beside_an_image(tmp_path):
    folder = annotated(tmp_path)
    (folder / "s1.geojson").rename(folder / "s1.png.geojson")
    assert find_annotations(folder, "s1.png") == folder / "s1.png.geojson"
    assert find_annotations(folder, "s2.png") is None
    (folder / "s2.geojson.zip").touch()
    assert find_annotations(folder, "s2.ome.tif") == folder / "s2.geojson.zip"
    (folder / "s1.geojson").touch()
    with pytest.raises(DatasetError, match=r"s1.png.geojson, s1.geojson may all be the annotations of s1.png; keep one"):
        find_annotations(folder, "s1.png")


def test_nuclei_train_a_class_of_their_own(tmp_path):
    slide(tmp_path / "a.png")
    cell = feature("Tumor", square(96, 96, 400))
    cell["nucleusGeometry"] = feature("", square(160, 160, 200))["geometry"]
    write_layout(tmp_path / "a.geojson", cell)
    source = {"kind": "annotated", "images": "a.png", "mpp": 0.5}
    dataset = open_dataset(settings(tmp_path, source | {"nuclei": "Stroma"}), tmp_path / "cache")
    found = dataset.members[0].class_map(Box(0, 0, 640, 768), 0.5)
    assert [(found == i).sum() for i in (0, 1)] == [50**2 - 25**2, 25**2]
    (note,) = open_dataset(settings(tmp_path, source, classes=CLASSES[1:2]), tmp_path / "cache").notes
    assert "1 nuclei of cells are left out" in note
    with pytest.raises(ValueError, match="unknown class 'Nucleus'"):
        settings(tmp_path, source | {"nuclei": "Nucleus"})


def test_labels_of_all_images_are_told_at_once(tmp_path):
    for name in ("a", "b", "c"):
        slide(tmp_path / f"{name}.png")
        label = "Tumor" if name == "a" else "Tumour"
        write_layout(tmp_path / f"{name}.geojson", feature(label, square(100, 100, 300)), feature("Region*", square(0, 0, 99)))
    source = {"kind": "annotated", "images": "?.png", "mpp": 0.5}
    config = settings(tmp_path.resolve(), source, classes=CLASSES[1:2])
    with pytest.raises(DatasetError, match=r"the labels of 2 of 3 images cannot be used: .*b.geojson: .* — .*c.geojson: "):
        open_dataset(config, tmp_path / "cache")
    renamed = settings(tmp_path.resolve(), source | {"names": "Tumour=Tumor"}, classes=CLASSES[1:2])
    for _ in range(2):  # made, and read again
        notes = open_dataset(renamed, tmp_path / "cache").notes
        assert [note for note in notes if "left out" in note] == [
            "a.geojson and 2 more: left out: 1 annotation of class 'Region*'"
        ]


@pytest.fixture(scope="module")
def scanned_in_part(tmp_path_factory):
    """A slide of 640 x 768 px of which what lies left of and above 128 px was not scanned."""
    folder = tmp_path_factory.mktemp("part")
    rgb = stained(640, 768)
    write_mrxs(folder / "a.mrxs", [rgb, np.ascontiguousarray(rgb[::2, ::2])], without=lambda y, x: min(y, x) < 128)
    return folder


@pytest.mark.parametrize(("more", "corner"), [({}, 128), ({"origin": "whole"}, 0)])
def test_annotations_count_from_what_was_scanned(scanned_in_part, tmp_path, more, corner):
    write_layout(scanned_in_part / "a.geojson", feature("Tumor", square(96, 96, 400)), feature("Stroma", square(0, 0, 64)))
    source = {"kind": "annotated", "images": "a.mrxs", "mpp": 0.5, **more}
    for _ in ("made", "kept"):
        dataset = open_dataset(settings(scanned_in_part, source), tmp_path / "cache")
        found = dataset.members[0].class_map(Box(0, 0, 640, 768), 0.5)
        assert [int(side.min()) * 8 for side in np.nonzero(found == 0)] == [96 + corner] * 2
        assert (found == 0).sum() == 50**2
    assert any("coordinates count from x=128, y=128 px" in note for note in dataset.notes) == (corner > 0)
    write_layout(scanned_in_part / "a.geojson", feature("Tumor", square(300, 96, 400)))
    with pytest.raises(DatasetError, match="out of range" if corner else "is in no source") as caught:
        open_dataset(settings(scanned_in_part, source), tmp_path / "other")
    assert ("or give 'origin: whole'" in str(caught.value)) == (corner > 0)


def test_points_say_where_they_count_from(scanned_in_part, tmp_path):
    (scanned_in_part / "p.csv").write_text("image,class,x_px,y_px\na,Tumor,200,240\n")
    source = {"kind": "points", "images": "a.mrxs", "mpp": 0.5, "csv": "p.csv", "radius_px": 40}
    source["columns"] = {"x": "x_px", "y": "y_px"}
    for origin, corner in (("scanned", 128), ("whole", 0)):
        labels = settings(scanned_in_part, source | {"origin": origin}, classes=CLASSES[1:2])
        found = open_dataset(labels, tmp_path / origin).members[0].class_map(Box(0, 0, 640, 768), 0.5)
        assert [int(side.min()) * 8 for side in np.nonzero(found == 0)] == [200 + corner, 160 + corner]
    with pytest.raises(DatasetError, match=r"the part at x=128, y=128 px was scanned; .*'origin: scanned' \(QuPath\)"):
        open_dataset(settings(scanned_in_part, source, classes=CLASSES[1:2]), tmp_path / "none")
