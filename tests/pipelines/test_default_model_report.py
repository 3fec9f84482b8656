"""The report of the default model compares a section with its twin at the same places, whatever the section's shape."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dataset.dataset_making import CLASSES, annotated, settings, slide
from drawing import feature, square, write_layout
from scipy.ndimage import gaussian_filter

from pipelines.her2st import made_slides
from pipelines.her2st.crops import Crops, held_out_places, twin_crops, with_own_detail
from pipelines.her2st.made_slides import Slides, make_class_slides, make_twin
from wsigen.dataset.dataset import open_dataset
from wsigen.slide.reading import open_image


def test_a_twin_has_the_size_and_the_classes_of_its_section(bundle: Path, tmp_path: Path) -> None:
    annotated(tmp_path / "data")
    slide(tmp_path / "data" / "s2.png", 704, 832, (0, 0, 704, 832))
    write_layout(tmp_path / "data" / "s2.geojson", feature("Stroma", square(0, 0, 700)))
    source = {"kind": "annotated", "images": "data", "mpp": 0.5, "background": "Glass"}
    dataset = open_dataset(settings(tmp_path, source, classes=CLASSES, held_out=["s2"]), tmp_path / "cache")
    (section,) = dataset.held_out
    height, width = section.canvas(dataset.mpps[0])
    assert height != width
    slides = Slides.called(tmp_path / "work", str(bundle), "dpm++", 2, 512)
    make_twin(dataset, tmp_path / "data", slides)
    twin = open_image(slides.twin)
    assert (twin.height, twin.width) == (height, width)
    before = slides.twin.stat().st_mtime_ns
    make_twin(dataset, tmp_path / "data", slides)
    assert slides.twin.stat().st_mtime_ns == before, "what is there is not made again"
    assert Slides.called(tmp_path / "work", str(bundle), "dpm++", 2, 512).twin == slides.twin
    where = held_out_places(dataset, 2)
    crops = twin_crops(slides.twin, where, dataset.mpps[0], len(dataset.table))
    for image, (_, box) in zip(crops.images, where, strict=True):
        np.testing.assert_array_equal(image, twin.region(box, (height, width)))


def test_slides_of_classes_are_made_again_only_if_something_else_is_asked_for(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another scale, or runs of another format, which may have other pixels."""
    made: list[Path] = []

    def generate(path: Path, **_: object) -> None:
        made.append(path)
        path.touch()

    monkeypatch.setattr("wsigen.generate", generate)

    def make(mpp: float) -> list[str]:
        made.clear()
        dataset = SimpleNamespace(
            mpps=[mpp], table=[SimpleNamespace(name=n, background=n == "Glass") for n in ("Glass", "Tumor")]
        )
        make_class_slides(dataset, Slides.called(tmp_path, str(bundle), "dpm++", 2, 512))
        return [path.name for path in made]

    assert make(0.5) == ["slide-512-tumor.ome.tiff"]
    assert make(0.5) == []
    assert make(1.0) == ["slide-512-tumor.ome.tiff"]
    monkeypatch.setattr(made_slides, "FORMAT", made_slides.FORMAT + 1)
    assert make(1.0) == ["slide-512-tumor.ome.tiff"]


def test_detail_put_back_brings_a_smoothed_crop_near_its_own() -> None:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    smoothed = np.rint(gaussian_filter(real.astype(np.float32), (0, 1, 1, 0))).astype(np.uint8)
    sides = [Crops(images, np.zeros(2, int)) for images in (smoothed, real)]
    before, after = (np.abs(found - real.astype(np.float32)).mean() for found in (smoothed, with_own_detail(*sides).images))
    assert after < 0.5 * before
    np.testing.assert_array_equal(with_own_detail(sides[1], sides[1]).images, real)
