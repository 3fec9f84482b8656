"""Every mistake becomes one line that says what, where and what to do."""

from contextlib import contextmanager

import pytest
import yaml
from dataset.dataset_making import CLASSES, annotated, settings, slide, spots, tiles
from drawing import feature, square, write_layout

from wsigen.base.errors import DatasetError
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.images import find_images
from wsigen.dataset.settings import read_settings
from wsigen.dataset.summary import summarise

TILES = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
ANNOTATED = {"kind": "annotated", "images": "slides", "mpp": 0.5}
POINTS = {"kind": "points", "images": "slides/s1.png", "mpp": 0.5, "csv": "s.csv", "unit": "px", "radius_px": 40}


def refused(root, match, *sources, skip_bad=False, **more):
    with pytest.raises(DatasetError, match=match) as caught:
        open_dataset(settings(root.resolve(), *sources, **more), root / "cache", skip_bad)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_annotations_outside_the_slide(tmp_path):
    annotated(tmp_path / "slides")
    write_layout(tmp_path / "slides" / "s1.geojson", feature("Tumor", square(700, 100, 300)))
    refused(tmp_path, r"s1\.geojson: feature 1 .*out of range.* 768 x 640 px; mend", ANNOTATED)


def test_a_class_of_the_annotations_the_config_does_not_name(tmp_path):
    annotated(tmp_path / "slides")
    write_layout(tmp_path / "slides" / "s1.geojson", feature("Tumour", square(100, 100, 300)))
    refused(tmp_path, r"unknown class 'Tumour' \(did you mean 'Tumor'\?\) \(1 times\); known: Tumor, Stroma; mend", ANNOTATED)


def test_folders_of_tiles_may_be_left_out_but_not_all(tmp_path):
    tiles(tmp_path / "tiles")
    (tmp_path / "tiles" / "BACK").mkdir()
    (tmp_path / "tiles" / "BACK" / "no picture.png").write_bytes(b"")
    found = find_images(settings(tmp_path.resolve(), {**TILES, "names": {"BACK": None}}))
    assert found
    assert not [file.name for file in found if "BACK" in file.name]
    every = {path.name: None for path in (tmp_path / "tiles").iterdir()}
    refused(tmp_path, r"tiles: 'names' leaves out every folder; keep one", {**TILES, "names": every})


def test_a_scale_of_an_image_that_is_not_there(tmp_path):
    annotated(tmp_path / "slides")
    given = {"s1.png": 0.5, "s3.pgn": 0.5}
    refused(tmp_path, r"source 0: 'mpp' speaks of 's3\.pgn', .*did you mean 's", {**ANNOTATED, "mpp": given})


def test_a_class_no_source_carries(tmp_path):
    annotated(tmp_path / "slides")
    extra = [*CLASSES[1:], {"name": "Necrosis", "color": [0, 0, 0]}]
    refused(tmp_path, "class 'Necrosis' is in no source", ANNOTATED, classes=extra)


def test_bare_glass_that_no_source_carries_is_told_alone(tmp_path):
    annotated(tmp_path / "slides")
    dataset = open_dataset(settings(tmp_path.resolve(), ANNOTATED, classes=CLASSES), tmp_path / "cache")
    assert [note for note in dataset.notes if "nothing is labelled 'Glass'" in note]


def test_a_class_without_patches(tmp_path):
    annotated(tmp_path / "slides")
    extra = [*CLASSES[1:], {"name": "Necrosis", "color": [0, 0, 0]}]
    tiles(tmp_path / "tiles", 1, 1)
    from PIL import Image

    (tmp_path / "tiles" / "Necrosis").mkdir()
    Image.new("RGB", (80, 80), (200, 100, 180)).save(tmp_path / "tiles" / "Necrosis" / "n.png")
    refused(tmp_path, "class 'Necrosis' has no patches: .*smaller than 128 px", ANNOTATED, TILES, classes=extra)


def test_a_class_only_in_held_out_groups(tmp_path):
    tiles(tmp_path / "tiles")
    for path in (tmp_path / "tiles" / "Stroma").glob("P[123]*"):
        path.unlink()
    message = "'Stroma' has no patches in training"
    refused(tmp_path, message, TILES, groups={"pattern": r"(P\d)"}, held_out=["P0"])


def test_slides_that_cannot_be_opened(tmp_path):
    annotated(tmp_path / "slides")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "broken.svs").write_bytes(b"II*\0 not a slide")
    (tmp_path / "plain" / "empty.png").write_bytes(b"")
    plain = {"kind": "unlabelled", "images": "plain", "mpp": 0.5}
    refused(tmp_path, r"2 of 3 images cannot be opened \(broken.svs, empty.png\).*--skip-bad", ANNOTATED, plain)
    dataset = open_dataset(settings(tmp_path.resolve(), ANNOTATED, plain), tmp_path / "cache", skip_bad=True)
    assert [name for name, _ in dataset.skipped] == ["plain/broken.svs", "plain/empty.png"]
    assert len(summarise(dataset)["skipped"]) == 2
    assert len(dataset.members) == 1


def test_a_full_disk_while_a_large_image_is_copied(tmp_path, monkeypatch):
    """A folder where the copy has to be stands for a disk that takes no more: libvips fails in the same way."""
    from wsigen.dataset import images

    slide(tmp_path / "slides" / "s1.png")
    monkeypatch.setattr(images, "COPY_FROM_PX", 1000)

    @contextmanager
    def full(path):
        yield path.parent / "missing" / path.name

    monkeypatch.setattr(images, "atomic_path", full)
    plain = {"kind": "unlabelled", "images": "slides", "mpp": 0.5}
    refused(tmp_path, r"tiled: the tiled copy of s1\.png cannot be written \(.*make room, or give another --cache", plain)
    assert not list((tmp_path / "cache" / "tiled").iterdir())


def test_no_resolution(tmp_path):
    annotated(tmp_path / "slides")
    refused(tmp_path, r"slides/s1\.png: no um/px in the file; give 'mpp:'", {"kind": "annotated", "images": "slides"})


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"groups": {"pattern": r"(P\d)"}, "held_out": ["P9"]}, r"held_out: no group 'P9'"),
        ({"groups": {"pattern": r"(P\d)"}, "held_out": ["P0", "P1", "P2", "P3"]}, "all 4 groups are held out"),
        ({"groups": {"pattern": r"(tiles)"}, "held_out_share": 0.5}, "all 1 groups are held out"),
        ({"groups": {"pattern": r"(X\d)"}}, r"finds nothing in 16 of 16 image names \('tiles/Stroma/P0_0.png', .*\.\.\.\)"),
        ({"groups": {"pattern": r"(P"}}, "is not a regular expression"),
        ({"held_out_share": 0.5}, "tiles of one patient would land on both sides"),
        ({"groups": {"csv": "g.csv"}}, "g.csv: no 'group' for 1 of 16 images"),
        ({"groups": {"csv": "g.csv", "group": "patient"}}, "no column 'patient'"),
        ({"groups": {"csv": "none.csv"}}, "the CSV cannot be read"),
    ],
)
def test_groups(tmp_path, more, match):
    tiles(tmp_path / "tiles")
    names = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "tiles").rglob("*.png"))
    (tmp_path / "g.csv").write_text("image,group\n" + "".join(f"{n},{n[-7:-5]}\n" for n in names[:-1]))
    refused(tmp_path, match, TILES, **more)


@pytest.mark.parametrize(
    ("rows", "more", "match"),
    [
        ([("s1", 100, 100, "Tumor"), ("s1", 900, 100, "Stroma")], {}, "1 points outside of the image of 768 x 640 px"),
        ([("s1", 100, 100, "Tumour")], {}, r"s\.csv: unknown class 'Tumour' .*\(1 times\).*'names'"),
        ([("s1", "a", 100, "Tumor")], {}, "line 2: x='a', y='100' are not numbers"),
        ([("s1", "nan", 100, "Tumor")], {}, "line 2: x='nan', y='100' are not numbers"),
        ([("s2", 100, 100, "Tumor")], {}, "no row speaks of an image of its source"),
        ([("s1", 100, 100, "Tumor")], {"columns": {"x": "x_px"}}, "no column 'x_px'; it has image, x, y, class"),
        ([("s1", 100, 100, "Tumor")], {"unit": None}, r"columns 'x' and 'y' do not say their unit; give 'unit: px'"),
        ([("s1", "a", 1, "Tumor"), ("s1", 1, "", "No")] * 2, {}, r"'No' \(2 times\).*; line 2: .*\(and in 1 more lines: 4\)"),
        ([], {}, "a header and no rows"),
    ],
)
def test_points(tmp_path, rows, more, match):
    annotated(tmp_path / "slides")
    spots(tmp_path / "s.csv", rows)
    refused(tmp_path, match, POINTS | more)


def test_folders_and_files_that_are_not_there_or_empty(tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "slides").mkdir()
    refused(tmp_path, "tiles: empty, no folders named after classes", TILES)
    refused(tmp_path, "slides: empty, no images", ANNOTATED)
    refused(tmp_path, "no such image or folder", {"kind": "unlabelled", "images": "nowhere"})
    refused(tmp_path, "no file matches", {"kind": "unlabelled", "images": "slides/*.svs"})
    (tmp_path / "tiles" / "Tumor").mkdir()
    refused(tmp_path, "Tumor: empty, no images", TILES)
    slide(tmp_path / "slides" / "s1.png")
    refused(tmp_path, r"slides/s1\.png: no .*s1\.geojson", ANNOTATED)
    refused(tmp_path, "named by source 0 and 1", ANNOTATED, {"kind": "unlabelled", "images": "slides/s1.png"})


def test_a_slide_of_glass_has_no_patches(tmp_path):
    slide(tmp_path / "a.png", tissue=(0, 0, 0, 0))
    refused(
        tmp_path, "no patches: no image holds 128 x 128 px of tissue", {"kind": "unlabelled", "images": "a.png", "mpp": 0.5}
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"levels": [{"name": "a", "mpp": 2}, {"name": "b", "mpp": 1}]}, "from fine to coarse"),
        ({"levels": [{"name": "a"}]}, "every level needs its mpp"),
        ({"patch_px": 100}, "'patch_px'.*multiple of 8"),
        ({"overlap_px": 512}, "less than patch_px"),
        ({"colour": 1}, "'colour'"),
        ({"patch_pix": 256}, r"unknown setting 'patch_pix' \(did you mean 'patch_px'\?\)"),
        ({"groups": {"patern": "x"}}, r"unknown setting 'groups.patern' \(did you mean 'pattern'\?\); known: pattern, csv"),
        (
            {"sources": [TILES, {**POINTS, "radius_mu": 3}]},
            r"unknown setting 'sources.1.points.radius_mu' \(did you mean 'radius_um'\?\)",
        ),
        ({"classes": [CLASSES[0], CLASSES[0]]}, "the name 'glass' appears twice"),
        ({"held_out": ["a"], "held_out_share": 0.2}, "exclude each other"),
        ({"sources": [{"kind": "points", "images": "a", "csv": "b"}]}, "either radius_px or radius_um"),
    ],
)
def test_the_file(tmp_path, change, match):
    values = {"classes": CLASSES, "levels": [{"name": "a", "mpp": 0.5}], "sources": [TILES]} | change
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(DatasetError, match=match) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="no such dataset file"):
        read_settings(tmp_path / "none.yaml")
