"""What is left out is said: rows about unknown images, images too coarse for a level; glass by tissue; renamed annotations."""

import json

import numpy as np
import pytest
from dataset.dataset_making import CLASSES, annotated, settings, slide, spots, tiles
from drawing import feature, square, write_layout

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError
from wsigen.base.geometry import Box
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.latents import cache_latents
from wsigen.dataset.summary import summarise

ANNOTATED = {"kind": "annotated", "images": "slides", "mpp": 0.5}
PLAIN = {"kind": "unlabelled", "images": "plain", "mpp": 0.5}
POINTS = {"kind": "points", "images": "a.png", "mpp": 0.5, "csv": "s.csv", "radius_px": 60}
WHOLE = Box(0, 0, 640, 768)
BOTH = [("a", 200, 200, "Tumor"), ("a", 400, 300, "Stroma")]


def test_rows_about_unknown_images_are_counted_and_named(tmp_path):
    slide(tmp_path / "a.png")
    slide(tmp_path / "plain" / "u1.png")
    strangers = [(name, 1, 1, "Tumor") for name in ("b", "c", "b", "d", "e")]
    spots(tmp_path / "s.csv", [*BOTH, *strangers, ("u1", 1, 1, "Tumor")])
    dataset = open_dataset(settings(tmp_path.resolve(), POINTS, PLAIN), tmp_path / "cache")
    (note,) = dataset.notes
    assert note.endswith("s.csv: 5 rows speak of 4 images its source does not have ('b', 'c', 'd', ...); they are left out")
    assert json.loads(json.dumps(summarise(dataset)))["notes"] == [note]
    spots(tmp_path / "s.csv", BOTH)
    assert open_dataset(settings(tmp_path.resolve(), POINTS, PLAIN), tmp_path / "cache").notes == []


def test_rows_that_are_all_unknown_or_left_out_are_refused(tmp_path):
    slide(tmp_path / "a.png")
    spots(tmp_path / "s.csv", [("b", 1, 1, "Tumor")])
    with pytest.raises(DatasetError, match="no row speaks of an image of its source"):
        open_dataset(settings(tmp_path.resolve(), POINTS), tmp_path / "cache")
    spots(tmp_path / "s.csv", BOTH)
    with pytest.raises(DatasetError, match="'names' leaves out all 2 rows"):
        open_dataset(settings(tmp_path.resolve(), POINTS | {"names": {"Tumor": None, "Stroma": None}}), tmp_path / "cache")


def test_an_image_teaches_no_level_it_would_be_enlarged_for(tmp_path):
    slide(tmp_path / "fine.png", seed=1)
    slide(tmp_path / "coarse.png", seed=2)
    source = {"kind": "unlabelled", "images": ["fine.png", "coarse.png"], "mpp": {"fine": 0.5, "coarse": 1.0}}
    config = settings(tmp_path.resolve(), source, patch_px=64)
    dataset = open_dataset(config, tmp_path / "cache")
    on = {k: {dataset.members[i].name for i in dataset.patches.member[dataset.patches.level == k]} for k in (0, 1)}
    assert on == {0: {"fine.png"}, 1: {"fine.png", "coarse.png"}}
    assert dataset.notes == [
        "level 'patch' (0.5 um/px): 1 of 2 images are left out there, as they would be enlarged more than 1.5 times "
        "('coarse.png'; the first has 1 um/px); raise most_upsampling to use them all the same"
    ]
    levels = summarise(dataset)["splits"]["training"]["levels"]
    assert [levels[k]["images_too_coarse"] for k in ("patch", "overview")] == [1, 0]
    more = open_dataset(config.model_copy(update={"most_upsampling": 2.0}), tmp_path / "more")
    assert set(more.patches.member[more.patches.level == 0].tolist()) == {0, 1}
    assert more.notes == []


def test_images_too_coarse_for_every_level_are_the_cause(tmp_path):
    slide(tmp_path / "a.png")
    coarse = {"kind": "unlabelled", "images": "a.png", "mpp": 4.0}
    with pytest.raises(DatasetError, match=r"no patches: .*1 of 1 images would be enlarged beyond most_upsampling"):
        open_dataset(settings(tmp_path.resolve(), coarse), tmp_path / "cache")


@pytest.mark.parametrize("kind", ["annotated", "points", "unlabelled"])
def test_glass_is_labelled_where_the_source_says_so(tmp_path, kind):
    annotated(tmp_path / "slides")
    slide(tmp_path / "plain" / "u1.png", seed=5)
    slide(tmp_path / "a.png", seed=6)
    spots(tmp_path / "s.csv", BOTH)
    sources = [dict(ANNOTATED), dict(POINTS), dict(PLAIN)]
    (mine,) = (s for s in sources if s["kind"] == kind)
    mine["glass"] = True
    dataset = open_dataset(settings(tmp_path.resolve(), *sources, classes=CLASSES), tmp_path / "cache")
    for member in dataset.members:
        found, tissue = member.class_map(WHOLE, 0.5), member.tissue(WHOLE, 0.5)
        labels = member.labels.layout((640, 768), (640, 768)).class_map(Box(0, 0, 80, 96), 8)
        assert 0.4 < tissue.mean() < 0.8
        expected = np.where((labels == UNKNOWN) & ~tissue, 0, labels) if member.kind == kind else labels
        assert np.array_equal(found, expected)
        part = Box(0, 0, 128, 256)
        assert np.array_equal(member.class_map(part, 0.5), expected[:16, :32])
        assert member.labelled == (member.kind != "unlabelled" or kind == "unlabelled")


def test_glass_needs_a_class_and_no_other_background(tmp_path):
    with pytest.raises(ValueError, match="source 0 has 'glass: true', but no class says 'background: true'"):
        settings(tmp_path, PLAIN | {"glass": True})
    with pytest.raises(ValueError, match="give one"):
        settings(tmp_path, ANNOTATED | {"glass": True, "background": "Glass"}, classes=CLASSES)


def test_annotations_are_renamed_or_left_out(tmp_path):
    annotated(tmp_path / "slides")
    drawn = [
        feature("Invasive: Positive", square(100, 100, 200)),
        feature("Stroma", square(360, 200, 240)),
        feature("Region*", square(20, 20, 600)),
        feature("Artefact", square(380, 220, 100)),
    ]
    write_layout(tmp_path / "slides" / "s1.geojson", *drawn)
    names = {"Invasive": "Tumor", "Region*": None, "Artefact": None}
    (member,) = open_dataset(settings(tmp_path.resolve(), ANNOTATED | {"names": names}), tmp_path / "cache").members
    found = member.class_map(WHOLE, 0.5)
    write_layout(
        tmp_path / "slides" / "s1.geojson", feature("Tumor", square(100, 100, 200)), feature("Stroma", square(360, 200, 240))
    )
    (plain,) = open_dataset(settings(tmp_path.resolve(), ANNOTATED), tmp_path / "cache").members
    assert np.array_equal(found, plain.class_map(WHOLE, 0.5))
    assert set(np.unique(found)) == {0, 1, UNKNOWN}


def test_names_that_lead_nowhere(tmp_path):
    annotated(tmp_path / "slides")
    with pytest.raises(ValueError, match=r"unknown class 'Tumour' \(did you mean 'Tumor'\?\)"):
        settings(tmp_path, ANNOTATED | {"names": {"Tumor": "Tumour"}})
    config = settings(tmp_path.resolve(), ANNOTATED | {"names": {"Tumor": None, "Stroma": None}})
    with pytest.raises(DatasetError, match=r"s1.geojson: 'names' leaves out every annotation"):
        open_dataset(config, tmp_path / "cache")


def test_latents_of_held_out_patches_are_standardised_by_the_training_split(tmp_path):
    tiles(tmp_path / "tiles")
    source = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
    config = settings(tmp_path.resolve(), source, groups={"pattern": r"(P\d)"}, held_out=["P1"])
    dataset = open_dataset(config, tmp_path / "cache")

    def encode(images):
        b, h, w, _ = images.shape
        return images.reshape(b, h // 8, 8, w // 8, 8, 3).mean((2, 4)).transpose(0, 3, 1, 2).astype(np.float32)

    training = cache_latents(dataset, encode, tmp_path / "t", "key")
    with pytest.raises(DatasetError, match="need 'training'"):
        cache_latents(dataset, encode, tmp_path / "h", "key", split="held_out")
    with pytest.raises(DatasetError, match="another dataset, encoder or split"):
        cache_latents(dataset, encode, tmp_path / "h", "other", split="held_out", training=training)
    held_out = cache_latents(dataset, encode, tmp_path / "h", "key", split="held_out", training=training)
    assert np.array_equal(held_out.mean, training.mean)
    assert np.array_equal(held_out.std, training.std)
    raw = held_out.group["latents"][:, 0].astype(np.float64)
    assert not np.allclose(raw.mean((0, 2, 3)), training.mean, rtol=1e-3)  # its own would be others
    batch = held_out.stream(0).batch(0, 4).latents
    again = batch * training.std[:, None, None] + training.mean[:, None, None]
    nearest = [np.abs(raw - one).max((1, 2, 3)).min() for one in again]
    assert max(nearest) < 0.1
