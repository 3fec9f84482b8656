"""Crops of a side: from tissue, at one um/px, a pure function of the seed; and everything a side can be wrong in."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import feature, square, write_layout
from hypothesis import given
from hypothesis import strategies as st
from metric_pictures import save, slide_with_tissue, texture
from slide_making import make_slide, tissue

import wsigen
from wsigen.base.errors import EvaluationError
from wsigen.base.geometry import Box
from wsigen.dataset.labels import WholeLabel
from wsigen.dataset.members import Member
from wsigen.evaluation.sides.marks import marked
from wsigen.evaluation.sides.members import UNLABELLED, folders_without_class
from wsigen.evaluation.sides.places import place_crops
from wsigen.evaluation.sides.sides import Crop, Side, common_mpp, enlarged, image_notes, open_side, unused_names, without_tissue
from wsigen.layout.class_names import WrittenClasses
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.reading import ImageSource

NAMES = ("real", "synthetic")


@pytest.fixture
def slide(tmp_path):
    return save(tmp_path / "s.tiff", slide_with_tissue(), mpp=0.5)


def test_crops_lie_on_tissue(slide):
    side = open_side("real", slide)
    crops = place_crops(side, 50, 64, None, seed=1)
    assert len(crops) == 50
    for crop in crops:
        pixels = side.read(crop)
        assert pixels.shape == (64, 64, 3)
        assert (pixels.mean(axis=2) < 235).mean() > 0.4


def test_what_is_odd_of_images_is_told_once(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.tiff", slide_with_tissue(), mpp=0.5)
    assert image_notes([open_side("real", tmp_path)]) == []
    sides = [open_side(name, tmp_path, 0.25) for name in ("real", "synthetic")]
    assert image_notes(sides) == ["a.tiff and 1 more: um/px stated as 0.25, the file says 0.5; what is stated is taken"]


def test_crops_are_a_function_of_the_seed(slide):
    places = [place_crops(open_side("real", slide), 20, 64, None, seed) for seed in (1, 1, 2)]
    assert places[0] == places[1] != places[2]
    other = place_crops(open_side("synthetic", slide), 20, 64, None, 1)
    assert other != places[0]


def test_another_um_per_px_resizes(slide):
    side = open_side("real", slide)
    crops = place_crops(side, 5, 64, 1.0, seed=1)
    assert crops[0].canvas == (300, 400)
    direct = side.members[0].reference.region(crops[0].box, (300, 400))
    assert (side.read(crops[0]) == direct).all()


def test_tiles_are_taken_once_and_named_by_their_folder(tmp_path):
    for i in range(6):
        save(tmp_path / ("Tumor" if i % 2 else "Stroma") / f"{i}.png", texture(64, 64, i))
    side = open_side("real", tmp_path)
    crops = place_crops(side, 100, 64, None, seed=0)
    assert sorted(c.member for c in crops) == list(range(6))
    assert {c.class_name for c in crops} == {"Tumor", "Stroma"}


def test_the_geojson_beside_a_slide_names_the_class(tmp_path):
    save(tmp_path / "s.tiff", texture(512, 512, 0), mpp=0.5)
    drawn = feature("Tumor", square(0, 0, 256)), feature("Stroma", square(256, 256, 256)), feature("Region*", square(0, 0, 64))
    write_layout(tmp_path / "s.geojson", *drawn)
    side = open_side("real", tmp_path / "s.tiff")
    crops = place_crops(side, 80, 64, 1.0, seed=0)
    for crop in crops:
        y, x = (2 * (v + 32) for v in (crop.box.y0, crop.box.x0))
        inside = [abs(v - 256) > 64 for v in (y, x)]
        if all(inside):
            expected = {(True, True): "Tumor", (False, False): "Stroma"}.get((y < 256, x < 256))
            assert crop.class_name == expected
    assert {c.class_name for c in crops} == {"Tumor", "Stroma", None}


def test_unreadable_files_are_named_and_the_rest_goes_on(tmp_path, slide):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    save(tmp_path / "small.png", texture(70, 70, 0))
    side = open_side("real", tmp_path, stated_mpp=0.5)
    assert [s.path.rsplit("/", 1)[1] for s in side.skipped] == ["bad.png"]
    assert len(place_crops(side, 10, 128, None, 0)) == 10
    assert [s.path.rsplit("/", 1)[1] for s in side.skipped] == ["bad.png", "small.png"]


def test_large_images_in_folders_of_classes_are_told_of(tmp_path):
    """A slide in its patient's folder that is drawn upon, or lies in no folder, has lost nothing."""
    pixels = texture(80, 2100, 0)
    for name in ("Tumor/a.png", "Tumor/drawn.png", "flat.png"):
        save(tmp_path / name, pixels)
    save(tmp_path / "Tumor" / "tile.png", texture(80, 80, 1))
    write_layout(tmp_path / "Tumor" / "drawn.geojson", feature("Tumor", square(0, 0, 80)))
    members = open_side("real", tmp_path, stated_mpp=0.5).members
    assert {m.path.name: m.table.names for m in members if isinstance(m.labels, WholeLabel) and m.labels.any} == {
        "tile.png": ["Tumor"]
    }
    (told,) = folders_without_class(tmp_path, members)
    assert told.startswith("1 of 4 images")
    assert "larger than 2048 px" in told
    assert not folders_without_class(tmp_path, [m for m in members if m.path.name != "a.png"])


def test_what_is_refused(tmp_path, slide):
    with pytest.raises(EvaluationError, match="no such"):
        open_side("real", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="no image"):
        open_side("real", tmp_path / "empty")
    save(tmp_path / "glass.png", np.full((300, 300, 3), 243, np.uint8))
    with pytest.raises(EvaluationError, match=r"no crop can be taken .*none shows tissue"):
        place_crops(open_side("real", tmp_path / "glass.png"), 5, 64, None, 0)
    with pytest.raises(EvaluationError, match="below 900 px"):
        place_crops(open_side("real", slide), 5, 900, None, 0)


def test_different_um_per_px_must_be_said(tmp_path, slide):
    real = open_side("real", slide)
    coarse = open_side("synthetic", save(tmp_path / "c.tiff", slide_with_tissue(), mpp=1.0))
    silent = open_side("synthetic", save(tmp_path / "n.png", slide_with_tissue()))
    with pytest.raises(EvaluationError, match=r"different um/px.*--mpp 1"):
        common_mpp([real, coarse], None)
    assert common_mpp([real, coarse], 1.0) == 1.0
    with pytest.raises(EvaluationError, match="--synthetic-mpp"):
        common_mpp([real, silent], None)
    with pytest.raises(EvaluationError, match="--synthetic-mpp"):
        common_mpp([real, silent], 1.0)
    assert common_mpp([silent, silent], None) is None
    stated = open_side("synthetic", tmp_path / "n.png", 0.5)
    assert common_mpp([real, stated], None) == pytest.approx(0.5)
    with pytest.raises(EvaluationError, match="its images have"):
        _ = open_side("real", _folder(tmp_path)).mpp


def _folder(tmp_path):
    for name, mpp in (("a", 0.5), ("b", 0.25)):
        save(tmp_path / "mixed" / f"{name}.tiff", texture(128, 128, 0), mpp)
    return tmp_path / "mixed"


@given(st.lists(st.tuples(st.sampled_from([None, 0.5, 0.51]), st.booleans()), min_size=2, max_size=6))
def test_no_image_is_silent_beside_one_that_says_its_um_per_px(images):
    members = [Member(str(m), Path(f"{m}.png"), ImageSource("", 64, 64, m), *UNLABELLED) for m, _ in images]
    parts = {name: [m for m, (_, first) in zip(members, images, strict=True) if first == (name == "real")] for name in NAMES}
    sides = [Side(name, Path(name), part) for name, part in parts.items() if part]
    said = [m for m, _ in images if m]
    if said and len(said) < len(images):
        with pytest.raises(EvaluationError, match=r"None.png: does not say its um/px .*--(real|synthetic)-mpp"):
            common_mpp(sides, None)
    else:
        assert (common_mpp(sides, None) is None) == (not said)


def test_um_per_px_that_are_the_same_are_read_without_resampling(tmp_path):
    """Unless somebody asks for other ones; a crop as large as a tile fits on it, whatever the last percent."""
    pixels = texture(128, 128, 0)
    path = save(tmp_path / "a.tiff", pixels, 0.2527)
    side = open_side("real", path)
    (crop,) = place_crops(side, 1, 128, 0.25, seed=0)
    assert (side.read(crop) == pixels).all()
    assert side.canvas(0, 0.5) == (65, 65)
    assert open_side("real", path, exact=True).canvas(0, 0.25) == (129, 129)


def test_tiles_of_a_class_are_tissue_everywhere_and_others_without_any_are_counted(tmp_path):
    """As a model's training takes them: a dataset's tile is all tissue."""
    glass = np.full((64, 64, 3), 243, np.uint8)
    for folder in ("Fat", "."):
        save(tmp_path / folder / "glass.png", glass)
        save(tmp_path / folder / "tissue.png", texture(64, 64, 0))
    side = open_side("synthetic", tmp_path)
    crops = place_crops(side, 100, 64, None, seed=0)
    assert [side.members[c.member].path.relative_to(tmp_path).as_posix() for c in crops] == [
        "Fat/glass.png",
        "Fat/tissue.png",
        "tissue.png",
    ]
    assert without_tissue([side]) == [f"{tmp_path}: 1 of 4 images show no tissue and were not compared"]


def test_slides_of_wsigen_on_a_real_side_are_told_of(tmp_path):
    made = make_slide(tmp_path / "made", PyramidSpec(512, 512, 0.5, 20), tissue(512, 512))
    said = {"photometric": "rgb", "tile": (128, 128), "description": "partly synthetic: 1 region"}
    tifffile.imwrite(tmp_path / "p.tif", texture(128, 128, 0), **said)
    save(tmp_path / "q.png", texture(128, 128, 0))
    sides = [open_side(name, tmp_path, 0.5) for name in ("training", "synthetic")]
    one = f"{tmp_path}: 1 of 3 images"
    partly = f"{one} ('p.tif') say that wsigen made a part of them; all of their tissue counts as"
    assert marked(sides) == [
        f"{one} ('{made.name}') say that wsigen made them, and count as training; were the sides exchanged?",
        f"{partly} real",
        f"{partly} synthetic",
    ]


def test_annotations_that_cannot_be_used_make_an_image_unlabelled(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.tiff", texture(512, 512, 0), mpp=0.5)
    write_layout(tmp_path / "a.geojson", feature("Tumor", square(0, 0, 512)))
    (tmp_path / "b.geojson").write_text('{"type": "FeatureCollection", "features": [')
    side = open_side("real", tmp_path)
    crops = place_crops(side, 30, 64, None, seed=0)
    assert {(c.member, c.class_name) for c in crops} == {(0, "Tumor"), (1, None)}
    assert list(side.unlabelled) == [1]
    assert "b.geojson" in side.unlabelled[1]
    assert not side.skipped


def test_enlarged_images_are_told_and_refused(tmp_path):
    fine = open_side("real", save(tmp_path / "f.tiff", texture(128, 128, 0), 0.25))
    coarse = open_side("synthetic", save(tmp_path / "c.tiff", texture(128, 128, 0), 0.7))
    assert enlarged([fine, coarse], 0.7) == enlarged([fine, coarse], 0.69) == enlarged([fine, coarse], None) == []
    (told,) = enlarged([fine, coarse], 0.4)
    assert "synthetic: 1 of 1 images are coarser than the 0.4 um/px" in told
    with pytest.raises(EvaluationError, match=r"c.tiff: 0.7 um/px would be enlarged 14 times to 0.05.*--mpp 0.7"):
        enlarged([fine, coarse], 0.05)


def test_images_are_drawn_by_their_area_whatever_the_cells_of_their_views(tmp_path):
    """A small image is viewed in smaller cells than a large one; a px of tissue is as likely on either."""
    save(tmp_path / "a.png", texture(256, 256, 0))
    save(tmp_path / "b.png", texture(1536, 1536, 1))
    side = open_side("real", tmp_path, stated_mpp=0.5)
    cells = [m.reference.height / side.tissue(i).shape[0] for i, m in enumerate(side.members)]
    assert cells[1] > 3 * cells[0]
    share = np.mean([c.member == 0 for c in place_crops(side, 1500, 32, None, seed=0)])
    assert share == pytest.approx(256**2 / (256**2 + 1536**2), abs=0.015)


def test_folders_of_slides_are_patients_and_of_tiles_classes(tmp_path):
    large = texture(64, 64, 0).repeat(40, 0).repeat(33, 1)
    save(tmp_path / "P1" / "slide.tiff", large, mpp=0.5)
    save(tmp_path / "P2" / "small.tiff", texture(128, 128, 1), mpp=0.5)
    write_layout(tmp_path / "P2" / "small.geojson", feature("Tumor", square(0, 0, 128)))
    save(tmp_path / "Stroma" / "P3" / "tile.tiff", texture(128, 128, 2), mpp=0.5)
    side = open_side("real", tmp_path)
    assert {m.path.stem: m.group for m in side.members} == {"slide": "P1", "small": "P2", "tile": "P3"}
    crops = [Crop(i, Box(0, 0, 64, 64), side.canvas(i, 0.5)) for i in range(3)]
    classes = {side.members[c.member].path.stem: side.class_of(c) for c in crops}
    assert classes == {"slide": None, "small": "Tumor", "tile": "Stroma"}


def test_a_patient_is_one_folder_however_deep_and_no_tile_is_its_own(tmp_path):
    large = texture(64, 64, 0).repeat(40, 0).repeat(33, 1)
    for name in ("P1/A/one", "P1/B/two", "flat"):
        save(tmp_path / f"{name}.tiff", large, mpp=0.5)
    for k, name in enumerate(("Stroma/P2/S1/c", "Stroma/P2/S2/d", "Stroma/e", "P3/S1/f", "g")):
        save(tmp_path / f"{name}.png", texture(64, 64, k))
    for name in ("P3/S1/f", "g"):
        write_layout(tmp_path / f"{name}.geojson", feature("Tumor", square(0, 0, 64)))
    groups = {m.path.stem: m.group for m in open_side("real", tmp_path, 0.5).members}
    patients = {"one": "P1", "two": "P1", "c": "P2", "d": "P2", "f": "P3"}
    assert groups == {**patients, "flat": "flat", "e": None, "g": None}


def test_classes_of_annotations_and_folders_are_renamed_and_left_out(tmp_path):
    save(tmp_path / "s.tiff", texture(512, 512, 0), mpp=0.5)
    shapes = [feature("Tumour: High", square(0, 0, 256)), feature("Region*", square(256, 0, 256))]
    write_layout(tmp_path / "s.geojson", *shapes, feature("Fat", square(0, 256, 256)), feature(None, square(256, 256, 256)))
    for name in ("Tumour/tile", "Fat/a", "Fat/P1/b"):
        save(tmp_path / f"{name}.png", texture(64, 64, 1), mpp=0.5)
    names = WrittenClasses({"Tumour": "Tumor", "Fat": None, "": "Stroma", "Nekrose": "Other"})
    side = open_side("real", tmp_path, 0.5, names=names)
    found = {}
    for index, member in enumerate(side.members):
        for box in (Box(0, 0, 64, 64), Box(300, 300, 364, 364), Box(0, 300, 64, 364), Box(300, 0, 364, 64)):
            if box.y1 <= member.reference.height and box.x1 <= member.reference.width:
                crop = Crop(index, box, side.canvas(index, 0.5))
                found.setdefault(member.path.relative_to(tmp_path).as_posix(), []).append(side.class_of(crop))
    assert found == {"Tumour/tile.png": ["Tumor"], "s.tiff": ["Tumor", "Stroma", None, None]}
    assert unused_names(names) == ["nothing is of class 'Nekrose', which --layout-names speaks of"]
    assert image_notes([side]) == [f"{tmp_path / 'Fat'}: 2 tiles left out, as --layout-names says"]
    (tmp_path / "s.tiff").unlink()
    with pytest.raises(EvaluationError, match="--layout-names leaves out all of its 3 tiles"):
        open_side("real", tmp_path, 0.5, names=WrittenClasses({"Fat": None, "Tumour": None}))


def test_names_that_no_side_can_use(tmp_path):
    (tmp_path / "d.yaml").write_text("")
    for names, cause in (("Tumor", "no '='"), ("a=b", "every side is a dataset.*'names' in its sources")):
        with pytest.raises(EvaluationError, match=f"--layout-names: .*{cause}"):
            wsigen.evaluate(tmp_path / "d.yaml", tmp_path / "d.yaml#training", layout_names=names)
