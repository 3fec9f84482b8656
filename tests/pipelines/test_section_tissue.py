"""Tissue is found, and glass becomes one constant colour."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.her2st.sections import (
    COARSE,
    area_mean,
    bounding_box,
    clean_glass,
    coarse_tissue,
    enlarge,
    glass_colour,
)

GLASS = (243, 241, 244)


def made_section(side: int = 640) -> np.ndarray:
    """Lilac glass with a printed spot, and a purple square of tissue."""
    image = np.full((side, side, 3), (237, 220, 236), dtype=np.uint8)
    image[40:56, 40:56] = (215, 205, 222)  # array spot
    image[224:448, 224:448] = (120, 60, 140)
    return image


def test_tissue_is_the_square_and_not_the_array_spot() -> None:
    mask = coarse_tissue(area_mean(made_section(), COARSE))
    rows, cols = bounding_box(mask)
    assert (rows.start, rows.stop, cols.start, cols.stop) == (14, 28, 14, 28)


def test_no_tissue_is_an_error() -> None:
    blank = np.full((64, 64, 3), 230.0, dtype=np.float32)
    with pytest.raises(ValueError, match="No tissue found"):
        bounding_box(coarse_tissue(blank))


def test_glass_and_array_spots_become_constant_and_tissue_stays_dark() -> None:
    image = made_section()
    coarse = area_mean(image, COARSE)
    tissue = coarse_tissue(coarse)
    glass = enlarge(glass_colour(coarse, tissue), (640, 640))
    inside = enlarge(tissue.astype(np.float32), (640, 640))
    cleaned, opacity = clean_glass(image, glass, inside, GLASS)
    assert (cleaned[:200] == GLASS).all()
    assert opacity[336, 336] == 1.0
    assert (cleaned[336, 336] < 180).all()


def test_area_mean_and_enlarge_keep_the_mean() -> None:
    field = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert np.allclose(area_mean(np.kron(field, np.ones((3, 3))), 3), field)
    assert enlarge(field, (16, 16)).shape == (16, 16)
    assert np.isclose(enlarge(field, (16, 16)).mean(), field.mean())
