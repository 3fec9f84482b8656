"""A dataset as a side: its held-out or training images, at the um/px of its finest level, with its classes."""

from itertools import product

import numpy as np
import pytest
import yaml
from dataset.dataset_making import CLASSES, annotated, slide, spots, tiles
from drawing import feature, square, write_layout

from wsigen.base.errors import DatasetError, EvaluationError
from wsigen.base.geometry import Box
from wsigen.dataset import open_dataset
from wsigen.dataset.summary import summarise
from wsigen.evaluation.downstream.samples import Samples, crop_groups
from wsigen.evaluation.evaluate import Settings, evaluate
from wsigen.evaluation.sides.places import place_crops
from wsigen.evaluation.sides.sides import Crop, common_mpp, open_side


def write_dataset(root, *sources, **more):
    """A dataset of 0.5 and 2 um/px whose file lies in ``root``."""
    values = {
        "classes": CLASSES[1:],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 2.0}],
        "patch_px": 128,
        "overlap_px": 32,
        "sources": list(sources),
    }
    path = root / "dataset.yaml"
    path.write_text(yaml.safe_dump(values | more))
    return path


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Four annotated slides of 0.25 um/px, the last one held out."""
    root = tmp_path_factory.mktemp("dataset")
    for i in range(4):
        slide(root / "slides" / f"s{i}.png", seed=i)
        shapes = feature("Tumor", square(64, 64, 320)), feature("Stroma", square(384, 64, 320))
        write_layout(root / "slides" / f"s{i}.geojson", *shapes)
    return write_dataset(root, {"kind": "annotated", "images": "slides", "mpp": 0.25}, patch_px=64, held_out=["s3"])


def names(side):
    return [m.path.name for m in side.members]


def test_a_part_is_named_behind_the_file(slides):
    assert names(open_side("real", slides)) == ["s3.png"]
    assert names(open_side("real", slides.with_name("dataset.yaml#held_out"))) == ["s3.png"]
    assert names(open_side("real", slides.with_name("dataset.yaml#training"))) == ["s0.png", "s1.png", "s2.png"]
    everything = open_side("real", slides.with_name("dataset.yaml#all"))
    assert [m.group for m in everything.members] == ["s0", "s1", "s2", "s3"]


def test_crops_have_the_um_per_px_of_the_finest_level(slides):
    side = open_side("real", slides)
    assert common_mpp([side], None) == 0.5
    crop = place_crops(side, 3, 64, 0.5, seed=0)[0]
    assert crop.canvas == (320, 384)
    assert side.read(crop).shape == (64, 64, 3)


def test_a_crop_has_the_class_that_covers_most_of_it(slides):
    side = open_side("real", slides)
    crops = place_crops(side, 60, 64, 0.5, seed=0)
    assert {c.class_name for c in crops} == {"Tumor", "Stroma", None}
    for crop in crops:
        high = max(0, min(crop.box.y1, 192) - max(crop.box.y0, 32))
        for name, x0 in (("Tumor", 32), ("Stroma", 192)):
            share = high * max(0, min(crop.box.x1, x0 + 160) - max(crop.box.x0, x0)) / 64**2
            assert (crop.class_name == name) == (share > 0.5) or abs(share - 0.5) < 0.1


def test_spots_and_tiles_name_classes_and_unlabelled_slides_do_not(tmp_path):
    slide(tmp_path / "spots" / "p.png")
    slide(tmp_path / "plain" / "u.png", seed=1)
    places = ((100, 200, 300, 400, 500), (150, 250, 350, 450))
    rows = [("p", x, y, "Tumor" if x < 300 else "Stroma") for x, y in product(*places)]
    spots(tmp_path / "spots.csv", rows)
    tiles(tmp_path / "tiles")
    dataset = write_dataset(
        tmp_path,
        {"kind": "points", "images": "spots", "csv": "spots.csv", "unit": "px", "radius_px": 50, "mpp": 0.5},
        {"kind": "unlabelled", "images": "plain", "mpp": 0.5},
        {"kind": "tiles", "folder": "tiles", "mpp": 0.5},
        groups={"pattern": r"(P\d|p\.png|u\.png)"},
        held_out=["P3"],
    )
    side = open_side("real", dataset.with_name("dataset.yaml#training"))
    found = {}
    for crop in place_crops(side, 200, 64, None, seed=0):
        found.setdefault(side.members[crop.member].path.parent.name, set()).add(crop.class_name)
    assert {"Tumor", "Stroma"} <= found["spots"]
    assert found["plain"] == {None}
    assert (found["Tumor"], found["Stroma"]) == ({"Tumor"}, {"Stroma"})
    held_out = open_side("real", dataset)
    assert {m.group for m in held_out.members} == {"P3"}


def test_tiles_of_a_dataset_without_groups_are_of_no_known_patient(tmp_path):
    """Each would else be a patient of its own, and tiles of one patient lie on both sides of a fold."""
    slide(tmp_path / "plain" / "u.png", seed=1)
    tiles(tmp_path / "tiles")
    sources = {"kind": "unlabelled", "images": "plain", "mpp": 0.5}, {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
    dataset = write_dataset(tmp_path, *sources)
    side = open_side("real", dataset.with_name("dataset.yaml#all"))
    assert {m.group for m in side.members if m.path.parent.name == "plain"} == {"u"}
    assert {m.group for m in side.members if m.path.parent.name != "plain"} == {None}
    assert summarise(open_dataset(dataset))["groups"] == 1
    of_tile = next(i for i, m in enumerate(side.members) if m.group is None)
    samples = Samples(side, [Crop(of_tile, Box(0, 0, 64, 64), (64, 64))], np.ones((1, 1)))
    with pytest.raises(EvaluationError, match=r"nobody says of which patient.*'groups' in the file of a dataset"):
        crop_groups(samples, None)
    assert crop_groups(samples, r"(P\d)_") == ["P0"]


def test_pens_are_no_tissue_of_a_dataset_nor_of_a_slide(tmp_path):
    """A blue stroke is darker than tissue and no part of it."""
    from PIL import Image

    path = slide(tmp_path / "slides" / "s.png", 1280, 1280, tissue=(100, 100, 1200, 700))
    pixels = np.asarray(Image.open(path)).copy()
    pixels[100:1200, 900:1100] = (10, 90, 200)
    Image.fromarray(pixels).save(path)
    dataset = write_dataset(tmp_path, {"kind": "unlabelled", "images": "slides", "mpp": 0.5})
    for side in (open_side("real", dataset.with_name("dataset.yaml#all")), open_side("real", path, 0.5)):
        assert max(c.box.x1 for c in place_crops(side, 100, 64, 0.5, seed=0)) < 800


def test_numbers_of_each_class_and_of_memorisation(slides):
    class Means:
        name, version, sha256, dimension = "means", "1", "ab" * 32, 3

        def features(self, images):
            return images.astype(np.float32).mean((1, 2))

        def probabilities(self, features):
            return None

    folder = slides.parent
    settings = Settings(
        slides, folder / "slides", slides.with_name("dataset.yaml#training"), crops=300, size_px=48, mpp=0.5, synthetic_mpp=0.25
    )
    seen = []
    found = evaluate(settings, Means(), lambda *what: seen.append(what))
    assert set(found.by_class) == {"Tumor", "Stroma"}
    assert all(row["fid"] >= 0 for row in found.by_class.values())
    assert "c_t" in found.numbers
    assert any("real and synthetic are the same in 1 of 4 files" in w for w in found.warnings)
    assert ("real, crops", len(found.sets["real"].crops), len(found.sets["real"].crops)) in seen


def test_the_index_is_that_of_the_training(slides):
    """Evaluating does not make a training build its index anew, though it leaves out what cannot be read."""
    opened = []
    open_side("real", slides)
    open_dataset(slides, watch=lambda *what: opened.append(what))
    assert not opened


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path):
    annotated(tmp_path / "slides")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    sources = {"kind": "annotated", "images": "slides", "mpp": 0.5}, {"kind": "unlabelled", "images": "plain", "mpp": 0.5}
    side = open_side("real", write_dataset(tmp_path, *sources).with_name("dataset.yaml#all"))
    assert names(side) == ["s1.png"]
    assert [s.path for s in side.skipped] == ["plain/bad.png"]


def test_what_is_refused(tmp_path, slides):
    with pytest.raises(EvaluationError, match=r"no part 'trainng' \(did you mean 'training'\?\)"):
        open_side("real", slides.with_name("dataset.yaml#trainng"))
    with pytest.raises(EvaluationError, match="leave out --real-mpp"):
        open_side("real", slides, 0.5)
    with pytest.raises(DatasetError, match="no such dataset file"):
        open_side("real", tmp_path / "none.yaml")
    annotated(tmp_path / "slides")
    whole = write_dataset(tmp_path, {"kind": "annotated", "images": "slides", "mpp": 0.5})
    with pytest.raises(EvaluationError, match=r"holds out no images.*dataset\.yaml#training"):
        open_side("real", whole)
