import json
from pathlib import Path

import numpy as np
import pytest
from dataset.dataset_making import CLASSES, annotated, settings, slide, spots, tiles
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError
from wsigen.base.geometry import Box
from wsigen.dataset import index
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.groups import group_images, split_groups
from wsigen.dataset.images import ImageFile
from wsigen.dataset.labels import PolygonLabels
from wsigen.dataset.patches import Patches, owners, starts, thin
from wsigen.dataset.summary import summarise
from wsigen.layout.read import read_layout

TILES = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
ANNOTATED = {"kind": "annotated", "images": "slides", "mpp": 0.5}


@pytest.fixture
def mixed(tmp_path):
    """Tiles of four patients, an annotated slide and an unlabelled one."""
    tiles(tmp_path / "tiles")
    annotated(tmp_path / "slides")
    slide(tmp_path / "plain" / "u1.png", seed=5)
    return settings(
        tmp_path.resolve(),
        TILES,
        ANNOTATED,
        {"kind": "unlabelled", "images": "plain", "mpp": 0.5},
        groups={"pattern": r"(P\d)_|([^/]+)\.png"},
        held_out=["P1"],
    )


def test_splits_share_no_patient(mixed, tmp_path):
    dataset = open_dataset(mixed, tmp_path / "cache")
    assert {m.group for m in dataset.held_out} == {"P1"}
    assert len(dataset.held_out) == 4
    assert not {m.group for m in dataset.training} & {"P1"}
    training, held_out = (set(dataset.split_patches(s).member.tolist()) for s in ("training", "held_out"))
    assert training
    assert held_out
    assert not {dataset.members[i].group for i in training} & {dataset.members[i].group for i in held_out}


def test_one_slide_in_two_formats_is_one_group():
    config = settings(".", ANNOTATED)
    names = ["a/S1.svs", "b/S1.ome.tif", "S1.OME.TIFF", "S2.ome.tif", "chrome.png"]
    assert group_images(config, [ImageFile(name, Path(name), 0) for name in names]) == {
        "a/S1.svs": "S1",
        "b/S1.ome.tif": "S1",
        "S1.OME.TIFF": "S1",
        "S2.ome.tif": "S2",
        "chrome.png": "chrome",
    }


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=3, max_size=30), st.integers(0, 1000), st.floats(0.05, 0.6))
def test_a_share_of_groups_is_held_out_whatever_their_order(groups, seed, share):
    config = settings(".", TILES, held_out_share=share, seed=seed)
    names = {f"{g}-{i}": g for g in groups for i in range(3)}
    held_out = split_groups(config, names)
    assert held_out == split_groups(config, dict(reversed(names.items())))
    assert 0 < len(held_out) < len(groups)
    assert abs(len(held_out) - share * len(groups)) <= 1


def test_sparse_maps_equal_the_layout_and_carry_nothing_else(mixed, tmp_path):
    dataset = open_dataset(mixed, tmp_path / "cache")
    (member,) = (m for m in dataset.members if isinstance(m.labels, PolygonLabels))
    box = Box(0, 0, 640, 768)
    layout = read_layout(member.path.with_suffix(".geojson"), dataset.table, (640, 768), 0)
    drawn = layout.class_map(Box(0, 0, 80, 96), 8)
    # `read_layout` paints class 0 (Tumor) outside the polygons: only the tumour's square may be Tumor in the dataset.
    outside = np.ones((80, 96), bool)
    centres = (np.arange(96) + 0.5) * 8
    for x, y, side in ((100, 100, 200), (360, 200, 240)):
        rows, columns = (centres[:80] >= y) & (centres[:80] < y + side), (centres >= x) & (centres < x + side)
        outside &= ~(rows[:, None] & columns[None])
    found = member.class_map(box, 0.5)
    assert (found[outside] == UNKNOWN).all()
    assert np.array_equal(found[~outside], drawn[~outside])
    assert set(np.unique(found)) == {0, 1, UNKNOWN}


def test_class_maps_at_another_resolution_follow_the_polygons(mixed, tmp_path):
    dataset = open_dataset(mixed, tmp_path / "cache")
    (member,) = (m for m in dataset.members if isinstance(m.labels, PolygonLabels))
    coarse = member.class_map(Box(0, 0, 160, 192), 2.0)
    fine = member.class_map(Box(0, 0, 640, 768), 0.5)
    assert coarse.shape == (20, 24)
    assert coarse[6, 6] == fine[26, 26] == 0
    assert coarse[10, 14] == fine[42, 58] == 1
    assert coarse[0, 0] == UNKNOWN
    assert abs((coarse == 1).mean() - (fine == 1).mean()) < 0.03


def test_a_declared_background_labels_the_rest(tmp_path):
    annotated(tmp_path / "slides")
    config = settings(tmp_path.resolve(), {**ANNOTATED, "background": "Glass"}, classes=CLASSES)
    (member,) = open_dataset(config, tmp_path / "cache").members
    assert member.class_map(Box(0, 0, 640, 768), 0.5)[0, 0] == 0


def test_overlapping_spots_of_different_classes_are_unknown(tmp_path):
    slide(tmp_path / "a.png")
    spots(tmp_path / "s.csv", [("a", 200, 200, "T"), ("a", 240, 200, "Stroma"), ("a", 500, 400, "?")])
    source = {
        "kind": "points",
        "images": "a.png",
        "mpp": 0.5,
        "csv": "s.csv",
        "unit": "px",
        "radius_um": 16,
        "names": {"T": "Tumor", "?": None},
    }
    (member,) = open_dataset(settings(tmp_path.resolve(), source), tmp_path / "cache").members
    y, x = np.mgrid[4:640:8, 4:768:8]
    tumour, stroma = (x - 200) ** 2 + (y - 200) ** 2 <= 32**2, (x - 240) ** 2 + (y - 200) ** 2 <= 32**2
    expected = np.where(tumour & ~stroma, 0, np.where(stroma & ~tumour, 1, UNKNOWN))
    assert (tumour & stroma).any()
    assert np.array_equal(member.class_map(Box(0, 0, 640, 768), 0.5), expected)
    part = Box(160, 128, 288, 256)
    assert np.array_equal(member.class_map(part, 0.5), expected[20:36, 16:32])


def test_batches_depend_on_seed_and_step_alone(mixed, tmp_path):
    first = open_dataset(mixed, tmp_path / "cache").crops("training", 64, 7)
    again = open_dataset(mixed, tmp_path / "cache").crops("training", 64, 7)
    first.batch(0, 3)
    for step in (5, 1, 5):
        a, b = first.batch(step, 6), again.batch(step, 4)
        assert np.array_equal(a.images[:4], b.images)
        assert np.array_equal(a.class_maps[:4], b.class_maps)
        assert np.array_equal(a.levels[:4], b.levels)
    assert not np.array_equal(first.batch(1, 4).images, first.batch(2, 4).images)
    other = open_dataset(mixed, tmp_path / "cache").crops("training", 64, 8)
    assert not np.array_equal(first.batch(1, 4).images, other.batch(1, 4).images)


def test_batches_have_the_shapes_and_types_of_the_interface(mixed, tmp_path):
    batch = open_dataset(mixed, tmp_path / "cache").crops("training", 96, 0).batch(0, 12)
    assert batch.images.shape == (12, 96, 96, 3)
    assert batch.class_maps.shape == (12, 12, 12)
    assert (batch.images.dtype, batch.class_maps.dtype) == (np.uint8, np.uint8)
    assert (batch.levels.dtype, batch.labelled.dtype) == (np.int64, bool)
    assert set(batch.levels.tolist()) == {0, 1}


def test_drawing_balances_classes_and_unlabelled(mixed, tmp_path):
    dataset = open_dataset(mixed, tmp_path / "cache")
    batch = dataset.crops("training", 64, 0, [1, 0], unlabelled_share=0.5).batch(0, 200)
    known = np.array([(m != UNKNOWN).any() for m in batch.class_maps])
    assert 0.3 < known.mean() < 0.75
    tumour, stroma = (np.array([(m == k).any() for m in batch.class_maps]).sum() for k in (0, 1))
    assert 0.6 < tumour / stroma < 1.7
    labelled = dataset.crops("training", 64, 0, [1, 0], unlabelled_share=0.0).batch(0, 40)
    assert all((m != UNKNOWN).any() for m in labelled.class_maps)
    unlabelled = dataset.crops("training", 64, 0, [1, 0], unlabelled_share=1.0).batch(0, 40)
    assert not unlabelled.labelled.all()


def test_at_most_n_patches_of_a_class(mixed, tmp_path):
    config = mixed.model_copy(update={"most_per_class": 3, "most_unlabelled": 2})
    patches = open_dataset(config, tmp_path / "cache").split_patches("training")
    owner = owners(patches, np.zeros(len(patches), np.int64))
    for level in (0, 1):
        for c, most in ((-1, 2), (0, 3), (1, 3)):
            assert np.count_nonzero((owner == c) & (patches.level == level)) <= most
    assert len(patches) >= 8


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=12, max_size=12).map(np.array), st.booleans())
@hypothesis_settings(max_examples=30, deadline=None)
def test_held_out_labels_decide_nothing_of_training(counts, rare):
    """Rows 0 to 7 are of a training image; whichever class is rare in the held-out one, the same of them are kept."""
    rows, names = np.arange(12, dtype=np.int32), ["train.png", "held-out.png"]
    member, config = (rows >= 8).astype(np.int32), settings(".", TILES, most_per_class=1, most_unlabelled=1)

    def kept(of_held_out):
        table = counts.copy()
        table[8:] = of_held_out
        patches = thin(Patches(member, 0 * rows, 8 * rows, 0 * rows, table.astype(np.int32)), names, np.array([0, 1]), config)
        return patches.y[patches.member == 0].tolist()

    assert kept(counts[8:]) == kept((100, 1, 1) if rare else (0, 0, 100))


def test_the_index_is_reused_and_rebuilt_when_stale(mixed, tmp_path, monkeypatch):
    first = open_dataset(mixed, tmp_path / "cache")
    calls = []
    real = index.open_listed
    monkeypatch.setattr(index, "open_listed", lambda *a: (calls.append(a[1]), real(*a))[1])
    again = open_dataset(mixed, tmp_path / "cache")
    assert calls == []
    assert again.key == first.key
    assert np.array_equal(again.patches.counts, first.patches.counts)
    for a, b in zip(first.members, again.members, strict=True):
        assert (a.mask is None and b.mask is None) or np.array_equal(a.mask, b.mask)
    slide(tmp_path / "plain" / "u1.png", width=800, seed=6)
    assert open_dataset(mixed, tmp_path / "cache").key != first.key
    assert len(calls) == len(first.members)
    (tmp_path / "cache" / "index.npz").write_bytes(b"damaged")
    open_dataset(mixed, tmp_path / "cache")
    assert len(calls) == 2 * len(first.members)


def test_summary_counts_what_is_there(mixed, tmp_path):
    dataset = open_dataset(mixed, tmp_path / "cache")
    summary = json.loads(json.dumps(summarise(dataset)))
    assert summary["images"] == 18
    assert summary["splits"]["held_out"]["images"] == 4
    level = summary["splits"]["training"]["levels"]["patch"]
    # 6 tiles of 160 px, a square of 200 px of which the cells' centres inside count
    assert abs(level["classes"]["Tumor"]["px"] - (6 * 160**2 + 200**2)) < 4 * 200 * 8
    assert 0 < level["unknown_share"] < 1
    assert summary["splits"]["training"]["levels"]["overview"]["images_too_small"] == 12


@given(st.integers(1, 4000), st.integers(8, 64), st.integers(0, 7))
@hypothesis_settings(max_examples=80)
def test_the_lattice_covers_the_side(side, patch8, overlap8):
    patch, overlap = patch8 * 8, overlap8 * 8
    found = starts(side, patch, overlap)
    if side < patch:
        assert found == []
        return
    assert found[0] == 0
    assert 0 <= side - (found[-1] + patch) < 8
    assert all(b - a <= patch - overlap and a % 8 == 0 for a, b in zip(found, [*found[1:], found[-1]], strict=True))


def test_crops_refuse_what_does_not_fit(mixed, tmp_path):
    dataset = open_dataset(mixed, tmp_path / "cache")
    with pytest.raises(DatasetError, match="multiple of 8 up to"):
        dataset.crops("training", 256, 0)
    with pytest.raises(DatasetError, match="give 2 numbers"):
        dataset.crops("training", 64, 0, [1.0])
    with pytest.raises(DatasetError, match="level 1 has a share and no patches"):
        dataset.crops("held_out", 64, 0, [0.5, 0.5])


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


def test_notes_on_images_are_told_from_a_kept_index_too(tmp_path):
    """An um/px that contradicts the file, and a picture larger than is read without a copy."""
    pixels = np.array(Image.open(slide(tmp_path / "a.png", seed=1)))
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(25400, 25400))
    source = {"kind": "unlabelled", "images": ["a.png"], "mpp": 0.5}
    config = settings(tmp_path.resolve(), source, patch_px=64)
    for _ in range(2):
        notes = open_dataset(config, tmp_path / "cache").notes
        assert notes == ["a.png: um/px stated as 0.5, the file says 1; what is stated is taken"]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_large_picture_is_copied_without_loss(tmp_path, monkeypatch, name):
    monkeypatch.setattr("wsigen.dataset.images.COPY_FROM_PX", 2**16)
    monkeypatch.setattr("wsigen.dataset.images.COPY_ROWS", 100)
    slide(tmp_path / name, seed=1)
    source = {"kind": "unlabelled", "images": [name], "mpp": 0.5}
    (member,) = open_dataset(settings(tmp_path.resolve(), source, patch_px=64), tmp_path / "cache").members
    assert member.reference.by_region
    assert len(member.reference.levels) > 1
    truth = np.array(Image.open(tmp_path / name))
    np.testing.assert_array_equal(member.reference.read(0, Box(0, 0, *truth.shape[:2])), truth)
    assert [p.suffix for p in (tmp_path / "cache" / "tiled").iterdir()] == [".tif"]


def test_images_too_coarse_for_every_level_are_the_cause(tmp_path):
    slide(tmp_path / "a.png")
    coarse = {"kind": "unlabelled", "images": "a.png", "mpp": 4.0}
    with pytest.raises(DatasetError, match=r"no patches: .*1 of 1 images would be enlarged beyond most_upsampling"):
        open_dataset(settings(tmp_path.resolve(), coarse), tmp_path / "cache")
