"""Weak class maps are repeatable, coherent, and unknown where nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.her2st.labels import (
    GLASS,
    NAMES,
    SCALES,
    STROMA,
    TUMOR,
    UNKNOWN,
    dense_labels,
    opacity_map,
    paint_spots,
    picture,
    section_features,
    spot_labels,
)
from pipelines.her2st.sections import Section

pytest.importorskip("sklearn")
WHITE = (243, 241, 244)


def made_section() -> Section:
    """Left half dark blue dots (tumour), right half pink, a border of glass."""
    rng = np.random.default_rng(0)
    rgb = np.full((512, 512, 3), WHITE, dtype=np.uint8)
    rgb[64:448, 64:448] = (200, 140, 190)
    for row, col in rng.integers(64, (440, 248), size=(400, 2)):
        rgb[row : row + 8, col : col + 8] = (40, 40, 110)
    tissue = np.zeros((64, 64), dtype=bool)
    tissue[8:56, 8:56] = True
    return Section("made", rgb, tissue, (0, 0), 1.0)


def labelled() -> tuple[Section, np.ndarray]:
    from pipelines.her2st.labels import fit_classifier

    section = made_section()
    features = section_features(section, WHITE)
    seeds = paint_spots(section, [(150.0, 250.0, TUMOR), (360.0, 250.0, STROMA)])
    classifier = fit_classifier([features], [seeds])
    return section, dense_labels(section, features, opacity_map(section.rgb), classifier)


def test_dense_labels_are_right_and_repeatable() -> None:
    section, labels = labelled()
    assert (labels[20:44, 12:24] == TUMOR).mean() > 0.9
    assert (labels[20:44, 40:52] == STROMA).mean() > 0.9
    assert (labels[:4] == GLASS).all()
    assert np.array_equal(labels, labelled()[1])
    assert picture(section.rgb, labels).size == (128, 64)


def test_features_have_every_name_at_every_scale() -> None:
    assert section_features(made_section(), WHITE).shape == (64, 64, len(NAMES) * len(SCALES))


def test_spots_are_read_and_carried_from_c1(tmp_path: Path) -> None:
    header = "section,x_px,y_px,aligned_x_px,aligned_y_px,cluster,annotated_as,coarse_class\n"
    spots = [(100, 100), (300, 100), (100, 300)]
    lines = [f"C2,{x},{y},{x + 50},{y - 20},2,cancer 1,cancer\n" for x, y in spots]
    (tmp_path / "spots.csv").write_text(header + "".join(lines))
    c1 = "aligned_x_px,aligned_y_px,pathologist_label\n250,180,connective tissue\n"
    (tmp_path / "c1_pathologist_spots.csv").write_text(c1)
    x, y, label = spot_labels(tmp_path, "C2")[0]
    assert (round(x), round(y), label) == (200, 200, STROMA)
    assert len(spot_labels(tmp_path, "C2")) == 4
    assert spot_labels(tmp_path, "C5") == []


def test_spots_leave_the_rest_unknown() -> None:
    labels = paint_spots(made_section(), [(256.0, 256.0, TUMOR)])
    assert labels[0, 0] == UNKNOWN
    assert labels[32, 32] == TUMOR
