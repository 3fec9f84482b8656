"""Label images as training data: areas, sizes, values, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dataset.dataset_making import CLASSES, settings, slide
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError
from wsigen.base.geometry import Box
from wsigen.dataset import open_dataset
from wsigen.dataset.images import ImageFile
from wsigen.dataset.label_sources import find_mask
from wsigen.dataset.mask_labels import MaskLabels
from wsigen.slide.reading import ImageSource

VALUES = {0: None, 1: "Tumor", 2: "Stroma"}


def blocks(height=640, width=768, side=64, seed=0, values=3):
    """Squares of values 0 to ``values`` - 1."""
    coarse = np.random.default_rng(seed).integers(0, values, (-(-height // side), -(-width // side)))
    return np.kron(coarse, np.ones((side, side), np.uint8)).astype(np.uint8)[:height, :width]


def saved(path, labels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path, **how)
    return path


def source(**more):
    return {"kind": "masks", "images": "images", "mpp": 0.5, "masks": "labels", "values": VALUES} | more


@pytest.fixture
def folder(tmp_path):
    """An image of 768 x 640 px and its mask."""
    slide(tmp_path / "images" / "s1.png")
    saved(tmp_path / "labels" / "s1.png", blocks())
    return tmp_path


def opened(folder, *sources, **more):
    return open_dataset(settings(folder, *(sources or (source(),)), **more), folder / "cache")


def refused(folder, *parts, **more):
    with pytest.raises(DatasetError) as caught:
        opened(folder, source(**more))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def classes_at(member, mpp, cell=1):
    canvas = member.canvas(mpp)
    return member.labels.layout(member.reference, canvas).class_map(Box(0, 0, canvas[0] // cell, canvas[1] // cell), cell)


def expected(labels):
    """`VALUES` as positions among Tumor and Stroma."""
    return np.array([UNKNOWN, 0, 1], np.uint8)[labels]


def test_every_pixel_of_a_mask_as_large_as_its_image(folder):
    dataset = opened(folder)
    (member,) = dataset.members
    labels = blocks()
    np.testing.assert_array_equal(classes_at(member, 0.5), expected(labels))
    for k in (1, 2):  # squares of 64 px hold whole cells of 8 px, on both levels
        cells = (expected(labels)[4::8, 4::8] == k - 1).sum()
        assert member.class_map(Box(0, 0, 640, 768), 0.5).tolist() == expected(labels)[4::8, 4::8].tolist()
        assert (member.class_map(Box(0, 0, 640, 768), 0.5) == k - 1).sum() == cells
    np.testing.assert_array_equal(member.class_map(Box(0, 0, 160, 192), 2.0), expected(labels)[16::32, 16::32])
    assert dataset.notes == []
    assert len(dataset.split_patches("training")) > 0


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(300, 700), st.integers(300, 700), st.integers(0, 99))
def test_a_coarser_mask_is_right_within_a_cell_of_the_borders(tmp_path_factory, factor, height, width, seed):
    folder = tmp_path_factory.mktemp("masks")
    mask = blocks(height // factor, width // factor, max(1, 64 // factor), seed)
    path = saved(folder / "m.png", mask)
    image = ImageSource("i.png", height, width, 0.5)
    labels = MaskLabels(path, settings(folder, source()).table, ((0, ""), (1, "Tumor"), (2, "Stroma")))
    found = labels.layout(image, (height, width)).class_map(Box(0, 0, height, width), 1)
    # each px shows the label of the mask's px at its place; where the mask is cut to whole px, of a neighbour
    place = [np.arange(side) * (side // factor) / side for side in (height, width)]
    rows, columns = (np.floor(p).astype(int) for p in place)
    whole = expected(mask)
    rows_after, columns_after = (
        np.minimum(np.floor((np.arange(side) + 1) * (side // factor) / side).astype(int), side // factor - 1)
        for side in (height, width)
    )
    either = [whole[np.ix_(a, b)] == found for a in (rows, rows_after) for b in (columns, columns_after)]
    assert np.logical_or.reduce(either).all()


def test_an_um_per_px_of_its_own(folder):
    saved(folder / "labels" / "s1.png", np.pad(blocks()[::8, ::8], ((0, 1), (0, 2)), mode="edge"))  # padded by a little
    (member,) = opened(folder, source(mask_mpp=4.0)).members
    np.testing.assert_array_equal(classes_at(member, 0.5), expected(blocks()))
    refused(folder, "s1.png", "98 x 81 px", "768 x 640 px", "384 x 320 px at mask_mpp 1", "3.918 would fit", mask_mpp=1.0)


def test_a_mask_of_another_shape_is_refused_with_both_names(folder):
    saved(folder / "labels" / "s1.png", blocks(640, 700))
    refused(folder, "labels/s1.png: the mask is 700 x 640 px", "images/s1.png 768 x 640 px", "not the same shape")
    saved(folder / "labels" / "s1.png", blocks(640, 767))  # cut by a px
    assert "767 x 640 px of it are stretched" in opened(folder).notes[0]


def test_a_mask_of_a_slide_that_was_scanned_in_part_may_show_either(tmp_path):
    """QuPath writes masks of what was scanned, others of the whole slide."""
    image = ImageSource("i.mrxs", 640, 640, 0.5, scanned=Box(256, 128, 640, 512))
    for side, mpp in ((640, None), (384, None), (160, None), (160, 2.0)):
        path = saved(tmp_path / f"{side}.png", blocks(side, side))
        labels = MaskLabels(path, settings(tmp_path, source()).table, ((0, ""), (1, "Tumor"), (2, "Stroma")), mpp=mpp)
        if side < 640 and mpp is None:
            with pytest.raises(DatasetError, match=r"384 x 384 px at 128, 256 were scanned: it may show either; say which"):
                labels.layout(image, (640, 640))
        else:
            assert labels.layout(image, (640, 640)).raster_height == side


def test_a_mask_at_its_um_px_of_the_part_that_was_scanned_is_not_stretched_over_the_slide(tmp_path):
    """No um/px is proposed that would make it fit the whole."""
    image = ImageSource("i.mrxs", 1000, 1000, 0.25, scanned=Box(100, 100, 600, 600))
    Image.fromarray(np.ones((500, 500), np.uint8)).save(tmp_path / "m.png")
    table = settings(tmp_path, source()).table
    masks = MaskLabels(tmp_path / "m.png", table, ((0, ""), (1, "Tumor"), (2, "Stroma")), mpp=0.25)
    with pytest.raises(DatasetError, match="'origin: scanned' if it shows the 500 x 500 px") as caught:
        masks.layout(image, (64, 64))
    assert "would fit" not in str(caught.value)


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.sampled_from([1.0, 0.5, 0.25]), st.integers(0, 300), st.integers(0, 300))
def test_a_mask_of_what_was_scanned_lies_where_it_was_scanned(tmp_path_factory, coarser, zoom, y, x):
    folder = tmp_path_factory.mktemp("masks")
    part = Box(y, x, y + 256, x + 320)
    image = ImageSource("i.mrxs", 640, 640, 0.5, scanned=part)
    labels = blocks(256, 320)
    path = saved(folder / "m.png", labels[::coarser, ::coarser])
    given_values = ((0, ""), (1, "Tumor"), (2, "Stroma"))
    masks = MaskLabels(path, settings(folder, source()).table, given_values, origin="scanned")
    assert bool(masks.notes(image)) == (coarser > 1)
    side = round(640 * zoom)
    found = masks.layout(image, (side, side)).class_map(Box(0, 0, side, side), 1)
    whole = np.full((640, 640), UNKNOWN, np.uint8)
    whole[part.slices] = expected(labels[::coarser, ::coarser].repeat(coarser, 0).repeat(coarser, 1))
    centres = ((np.arange(side) + 0.5) / zoom).astype(int)
    np.testing.assert_array_equal(found, whole[np.ix_(centres, centres)])


def test_masks_of_another_origin_than_said(tmp_path):
    image = ImageSource("i.mrxs", 640, 640, 0.5, scanned=Box(256, 128, 512, 448))
    path, table = saved(tmp_path / "m.png", blocks(640, 640)), settings(tmp_path, source()).table
    masks = MaskLabels(path, table, ((0, ""), (1, "Tumor"), (2, "Stroma")), origin="scanned")
    with pytest.raises(DatasetError, match=r"640 x 640 px, the part scanned of i\.mrxs 320 x 256 px: not the same shape"):
        masks.layout(image, (640, 640))
    assert replace(masks, origin="whole").layout(image, (640, 640)).raster_height == 640


def test_a_coarser_mask_is_told(folder):
    saved(folder / "labels" / "s1.png", blocks()[::16, ::16])
    dataset = opened(folder)
    assert "48 x 40 px of it are stretched over the 768 x 640 px of its image" in dataset.notes[0]


def test_unlisted_values(folder):
    labels = blocks()
    labels[:10, :20] = 7
    labels[0, :6] = [9, 10, 11, 12, 40, 250]
    saved(folder / "labels" / "s1.png", labels)
    saved(folder / "images" / "s2.png", np.asarray(Image.open(folder / "images" / "s1.png")))
    saved(folder / "labels" / "s2.png", labels + np.uint8(1))
    refused(folder, "2 of 2 images", "7, 9-12, 40, 250 in 200 of", "0: (no label), 1: Tumor", "unlisted: ignore", "s2.png")
    dataset = opened(folder, source(unlisted="ignore"))
    assert "7, 9-12, 40, 250, in 200 of 491520 pixels are ignored" in dataset.notes[0]
    np.testing.assert_array_equal(classes_at(dataset.members[0], 0.5), expected(np.where(labels > 2, 0, labels)))
    dataset = opened(folder, source(unlisted="nearest"))
    np.testing.assert_array_equal(classes_at(dataset.members[0], 0.5), expected(np.minimum(labels, 2)))


def test_a_jpeg_mask_is_read_by_a_threshold(folder):
    binary = blocks(values=2, side=20) * np.uint8(255)
    (folder / "labels" / "s1.png").unlink()
    path = saved(folder / "labels" / "s1.jpg", np.dstack([binary] * 3))
    dataset = opened(folder, source(values={0: "Stroma", 255: "Tumor"}))
    (member,) = dataset.members
    found = classes_at(member, 0.5)
    assert (found != np.where(binary, 0, 1)).mean() < 0.01
    np.testing.assert_array_equal(found, np.where(np.asarray(Image.open(path).convert("L")) >= 128, 0, 1))
    assert "lossy compression" in dataset.notes[0]
    refused(folder, "lossy", "without loss")


def test_colours_a_palette_and_alpha(folder):
    colours = np.array([[255, 255, 255, 0], [255, 0, 0, 255], [0, 200, 0, 255]], np.uint8)
    saved(folder / "labels" / "s1.png", colours[blocks()])
    dataset = opened(folder, source(values={"#ffffff": None, "#ff0000": "T", "#00C800": "Stroma"}, names={"T": "Tumor"}))
    np.testing.assert_array_equal(classes_at(dataset.members[0], 0.5), expected(blocks()))
    assert "alpha channel is ignored" in dataset.notes[0]
    refused(folder, "a picture in colour", "'#ff0000'")
    image = Image.fromarray(blocks())
    image.putpalette(colours[:, :3].ravel().tolist())
    image.save(folder / "labels" / "s1.png")
    (member,) = opened(folder).members
    np.testing.assert_array_equal(classes_at(member, 0.5), expected(blocks()))


def test_a_table_in_a_file_counts_for_the_index(folder):
    table = folder / "values.csv"
    table.write_text("value;class\n0;\n1;Tumor\n2;Stroma\n")
    first = opened(folder, source(values="values.csv"))
    table.write_text("value;class\n0;\n1;Stroma\n2;Tumor\n")
    second = opened(folder, source(values="values.csv"))
    np.testing.assert_array_equal(first.areas[..., [1, 0]], second.areas[..., :2])
    assert first.key != second.key


def test_large_masks_are_read_by_region(folder, monkeypatch):
    monkeypatch.setattr("wsigen.dataset.mask_labels.COPY_FROM_PX", 1000)
    (member,) = opened(folder).members
    (copy,) = (p for p in (folder / "cache" / "tiled").iterdir())
    with tifffile.TiffFile(copy) as tif:
        assert tif.pages.first.is_tiled
    np.testing.assert_array_equal(classes_at(member, 0.5), expected(blocks()))
    tifffile.imwrite(folder / "labels" / "s1.tif", blocks(), tile=(128, 128), compression="deflate")
    (folder / "labels" / "s1.png").unlink()
    (member,) = opened(folder).members
    assert list((folder / "cache" / "tiled").iterdir()) == [copy]
    np.testing.assert_array_equal(classes_at(member, 0.5), expected(blocks()))


def test_a_large_mask_in_colour_is_refused_before_it_is_copied(folder, monkeypatch):
    monkeypatch.setattr("wsigen.dataset.mask_labels.COPY_FROM_PX", 1000)
    saved(folder / "labels" / "s1.png", np.dstack([blocks(), blocks() * 100, blocks()]))  # the red channel alone would do
    refused(folder, "a picture in colour", "'#016401'")
    assert not (folder / "cache" / "tiled").exists()


def test_colours_that_a_jpeg_changed_are_read_as_the_nearest_where_asked_for(folder):
    (folder / "labels" / "s1.png").unlink()
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    saved(folder / "labels" / "s1.jpg", colours[blocks()], quality=95, subsampling=0)
    values = {"#ffffff": None, "#ff0000": "Tumor", "#0000ff": "Stroma"}
    refused(folder, "lossy", "without loss", values=values)
    dataset = opened(folder, source(values=values, unlisted="nearest"))
    assert (classes_at(dataset.members[0], 0.5) == expected(blocks())).mean() > 0.999
    assert "read as the nearest" in dataset.notes[0]


def test_names_of_masks(tmp_path):
    for name in (
        "labels/a.png",
        "labels/P1/a.tif",
        "labels/a_mask.png",
        "P1/images/a.mask.png",
        "P1/masks/a.png",
        "P1/images/a.tif",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    file = ImageFile("P1/images/a.tif", tmp_path / "P1/images/a.tif", 0)

    def found(masks, file=file):
        path = find_mask(tmp_path, masks, file)
        return path and Path(path).resolve().relative_to(tmp_path.resolve()).as_posix()

    assert found("labels") == "labels/a.png"
    assert found("labels", ImageFile("x/P1/a.tif", tmp_path / "x/P1/a.tif", 0)) == "labels/P1/a.tif"
    assert found("labels/*_mask.png") == "labels/a_mask.png"
    assert found("../masks/*.png") == "P1/masks/a.png"
    assert found("../masks") == "P1/masks/a.png"
    assert found("./*.mask.png") == "P1/images/a.mask.png"
    assert found("P1/images") is None  # never the image itself
    (tmp_path / "labels" / "a.tif").touch()
    with pytest.raises(DatasetError, match=r"a\.png, a\.tif may all be the mask"):
        found("labels")


def test_masks_that_are_missing_or_meant_twice(folder):
    slide(folder / "images" / "s2.png")
    slide(folder / "images" / "s3.png")
    refused(folder, "no mask of 2 of 3 images ('images/s2.png', 'images/s3.png')")
    slide(folder / "more" / "s1.png")
    for name in ("s2", "s3"):
        (folder / "images" / f"{name}.png").unlink()
    refused(folder, "labels/s1.png: the mask of", "more/s1.png", images=["images", "more"])


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"masks": "*/labels/*.png"}, "give a folder"),
        ({"masks": "*_*.png"}, "one \\*"),
        ({"values": {"red": "Tumor"}}, "nor a colour"),
        ({"values": {}}, "empty"),
        ({"values": {1: "Tumor", "#ffffff": "Stroma"}}, "both numbers and colours"),
        ({"names": {"T": "Fat"}}, "unknown class 'Fat'"),
        ({"unlisted": "drop"}, "unlisted"),
    ],
)
def test_settings(folder, more, part):
    with pytest.raises(ValueError, match=part):
        settings(folder, source(**more))


def test_unknown_classes(folder):
    refused(folder, "unknown class 'Tumour'", "did you mean 'Tumor'", values={0: None, 1: "Tumour", 2: "Stroma"})
    refused(folder, "nothing.csv", "no such class table", values="nothing.csv")


def test_a_class_that_no_mask_shows(folder):
    assert any("nothing is labelled 'Glass'" in note for note in opened(folder, classes=CLASSES).notes)
    saved(folder / "labels" / "s1.png", blocks(values=2))
    refused(folder, "class 'Stroma' is in no source")
    dot = blocks(values=2)
    dot[0, 0] = 2
    saved(folder / "labels" / "s1.png", dot)
    refused(folder, "class 'Stroma' has no patches", "fall between cells")
    saved(folder / "labels" / "s1.png", blocks())
    assert opened(folder, source(glass=True), classes=CLASSES).areas[:, :, 0].sum() > 0
