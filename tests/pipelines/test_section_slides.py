"""A section written as a dataset's image says what the section said."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.her2st.labels import GLASS, STROMA, TUMOR, UNKNOWN, write_section
from pipelines.her2st.sections import PATCH_MPP, Section
from wsigen.base.classes import UNKNOWN as NOBODY_KNOWS
from wsigen.base.geometry import Box
from wsigen.dataset import open_dataset
from wsigen.dataset.settings import DatasetSettings

CLASSES = [
    {"name": "Glass", "color": [235, 235, 240], "background": True},
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [0, 200, 0]},
]


def test_a_dataset_reads_back_pixels_and_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(80, 200, (576, 640, 3)).astype(np.uint8)
    labels = np.full((72, 80), UNKNOWN, np.uint8)
    labels[:, :10], labels[4:20, 10:30], labels[20:, 65:] = GLASS, TUMOR, STROMA
    write_section(Section("C9", rgb, np.ones((72, 80), bool), (0, 0), 1.0), labels, tmp_path)
    settings = DatasetSettings.model_validate(
        {
            "root": tmp_path,
            "classes": CLASSES,
            "levels": [{"name": "patch", "mpp": PATCH_MPP}],
            "patch_px": 128,
            "overlap_px": 0,
            "sources": [{"kind": "annotated", "images": "*.tif"}],
        }
    )
    (member,) = open_dataset(settings, tmp_path / "cache").members
    box = Box(0, 0, 576, 640)
    np.testing.assert_array_equal(member.image(box, PATCH_MPP), rgb)
    expected = np.where(labels == UNKNOWN, np.uint8(NOBODY_KNOWS), labels)
    np.testing.assert_array_equal(member.class_map(box, PATCH_MPP), expected)
