"""Crops: augmentation keeps glass and loses nothing; damaged tiles are named, or passed over the same way every time."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from dataset.dataset_making import CLASSES, settings, slide, stained, tiles
from drawing import feature, square, write_layout

from wsigen.base.errors import DatasetError, ImageError
from wsigen.dataset.crops import ReadFailures, dihedral, jitter_stain
from wsigen.dataset.dataset import Dataset, open_dataset
from wsigen.dataset.latents import cache_latents
from wsigen.dataset.summary import summarise

TILES = {"kind": "tiles", "folder": "tiles", "mpp": 0.5}
BAD = "tiles/Tumor/P9_0.tif"


def damage(file: Path, count: int) -> None:
    """Overwrite the first tiles of a TIFF; its directory stays whole."""
    with tifffile.TiffFile(file) as tiff:
        places = list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))[:count]
    content = bytearray(file.read_bytes())
    for offset, size in places:
        content[offset : offset + size] = b"\xff" * size
    file.write_bytes(content)


def make(root: Path, tiles_lost: int, skip_bad: bool, patients: int = 4) -> Dataset:
    if not (root / "tiles").exists():
        tiles(root / "tiles", patients)
    file = root / BAD
    tifffile.imwrite(file, stained(512, 512, 7), tile=(256, 256), compression="zlib", photometric="rgb")
    damage(file, tiles_lost)
    return open_dataset(settings(root.resolve(), TILES, levels=[{"name": "patch", "mpp": 0.5}]), root / "cache", skip_bad)


def draw(dataset: Dataset, steps: range) -> list[np.ndarray]:
    stream = dataset.crops("training", 64, seed=3)
    return [stream.batch(step, 8).images for step in steps]


def encode(images: np.ndarray) -> np.ndarray:
    b, h, w, _ = images.shape
    return images.reshape(b, h // 8, 8, w // 8, 8, 3).astype(np.float32).mean((2, 4)).transpose(0, 3, 1, 2) / 64 - 1


def test_without_skip_bad_one_line_names_the_image(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1, False)
    for read in (lambda: draw(dataset, range(20)), lambda: cache_latents(dataset, encode, tmp_path / "latents", "key")):
        with pytest.raises(DatasetError, match=rf"{BAD}: opens and cannot be read everywhere.*--skip-bad") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_with_skip_bad_only_what_is_damaged_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = draw(make(tmp_path, 0, True), range(10))
    dataset = make(tmp_path, 1, True)
    assert not dataset.skipped, "the damage is met later"
    found = draw(dataset, range(10))
    assert capsys.readouterr().err.count(BAD) == 2, "named once, by its name and its path"
    same = [np.array_equal(a, b) for one, other in zip(found, whole, strict=True) for a, b in zip(one, other, strict=True)]
    assert 0.75 < np.mean(same) < 1
    resumed = draw(dataset, range(4, 10))
    assert all(np.array_equal(a, b) for a, b in zip(resumed, found[4:], strict=True)), "a function of seed and step"


def test_where_a_window_is_told_no_patch_takes_the_place_of_another(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1, True, patients=1)
    with pytest.raises(
        DatasetError, match=rf"{BAD}: opens and cannot be read everywhere.*; mend or remove it: with an encoder's"
    ):
        cache_latents(dataset, encode, tmp_path / "latents", "key", replacing=False)


def test_with_skip_bad_a_damaged_patch_is_replaced_by_one_of_its_kind(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1, True)
    cache = cache_latents(dataset, encode, tmp_path / "latents", "key")
    again = cache_latents(dataset, encode, tmp_path / "again", "key")
    latents, maps = cache.group["latents"][:, 0], cache.group["classes"][:, 0]
    assert np.isfinite(latents).all()
    assert np.array_equal(latents, again.group["latents"][:, 0])
    assert (maps == cache.patches.counts.argmax(axis=1)[:, None, None]).all(), "each still of its own class"
    bad = [m.name for m in dataset.members].index(BAD)
    mine = latents[cache.patches.member == bad]
    others = latents[cache.patches.member != bad]
    assert 0 < sum(any(np.array_equal(a, b) for b in others) for a in mine) < len(mine)


def test_too_much_damage_ends_it(tmp_path: Path) -> None:
    dataset = make(tmp_path, 4, True, patients=1)
    with pytest.raises(DatasetError, match=rf"reads failed, \d+ of them of {BAD}.*mend or remove"):
        draw(dataset, range(100))


@pytest.mark.parametrize(("expected", "ends"), [(0, True), (4000, False)])
def test_one_bad_image_read_first_is_not_all_of_them(expected: int, ends: bool) -> None:
    """Where reads come image by image, the share is one of all there will be."""
    failures = ReadFailures(skip=True, expected=expected)

    def meet() -> bool:
        try:
            failures.failed("bad.tif", ImageError("bad.tif: truncated"))
        except DatasetError:
            return True
        return False

    ended = [meet() for _ in range(100)]
    assert any(ended) == ends


@pytest.mark.parametrize("amount", [0.05, 0.24, 0.5])
def test_jitter_changes_densities_by_no_more_than_its_amount(amount: float) -> None:
    grey = np.full((1, 1, 3), 60, np.uint8)
    jittered = np.concatenate([jitter_stain(grey, np.random.default_rng(seed), amount) for seed in range(300)])
    before, after = (-np.log((values + 1.0) / 256.0) - 0.08 for values in (grey.astype(float), jittered.astype(float)))
    change, rounding = np.abs(after / before - 1), 0.015
    assert 0.7 * amount < change.max() < amount + rounding


def test_jitter_leaves_glass_alone_and_changes_tissue() -> None:
    rng = np.random.default_rng(0)
    glass = np.full((4, 4, 3), 244, dtype=np.uint8)
    assert np.abs(jitter_stain(glass, rng).astype(int) - glass).max() <= 1
    tissue = np.full((4, 4, 3), (180, 90, 150), dtype=np.uint8)
    assert np.abs(jitter_stain(tissue, rng).astype(int) - tissue).max() > 1


def test_variants_are_the_eight_turns_and_flips() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    assert np.array_equal(dihedral(rgb, 0), rgb)
    variants = [dihedral(rgb, variant) for variant in range(8)]
    assert len({v.tobytes() for v in variants}) == 8
    assert all(sorted(v.reshape(-1, 3).tolist()) == sorted(rgb.reshape(-1, 3).tolist()) for v in variants)


def test_crops_of_a_patch_with_little_label_and_no_tissue_lie_around_the_label(tmp_path: Path) -> None:
    slide(tmp_path / "s1.png", 640, 1024, tissue=(64, 64, 576, 576))
    write_layout(tmp_path / "s1.geojson", feature("Tumor", square(100, 100, 300)), feature("Tumor", square(840, 296, 8)))
    source = {"kind": "annotated", "images": "s1.png", "mpp": 0.5}
    levels, classes = [{"name": "patch", "mpp": 0.5}], CLASSES[1:2]
    dataset = open_dataset(settings(tmp_path.resolve(), source, levels=levels, classes=classes), tmp_path / "cache")
    summary = summarise(dataset)["splits"]["training"]["levels"]["patch"]
    sliver = np.array([c.sum() == 1 for c in dataset.split_patches("training").counts])
    assert summary["little_labelled_patches"] >= sliver.sum() > 0
    batch = dataset.crops("training", 64, 0, unlabelled_share=1.0).batch(0, 64)
    assert ((batch.class_maps == 0).sum(axis=(1, 2)) == 1).any()
