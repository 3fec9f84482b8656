import numpy as np
import pytest
from dataset.dataset_making import GLASS, stained
from PIL import Image

from wsigen.slide.reading import open_image
from wsigen.slide.tissue import find_tissue, tissue_mask

TISSUE = (slice(60, 180), slice(80, 260))


def view(glass=GLASS):
    image = np.broadcast_to(np.array(glass, np.uint8), (300, 400, 3)).copy()
    image[TISSUE] = np.rint(stained(120, 180) * (np.array(glass) / 255))  # the glass lies under the tissue
    return image


def share(mask, place):
    return mask[place].mean()


def test_tissue_is_found_on_white_lilac_and_yellowish_glass():
    for glass in ((255, 255, 255), GLASS, (200, 185, 212), (240, 238, 220)):
        mask = tissue_mask(view(glass), 8.0)
        assert share(mask, TISSUE) > 0.97
        outside = mask.copy()
        outside[50:190, 70:270] = False
        assert not outside.any(), glass


def test_pens_dust_spots_and_haze_are_no_tissue():
    image = view()
    image[200:220, 20:380] = (30, 60, 200)  # blue pen
    image[230:250, 20:380] = (20, 140, 60)  # green pen
    image[10:30, 20:380] = (15, 15, 15)  # black pen
    image[100:110, 300:310] = (150, 150, 152)  # dust
    image[260:262, 20:380:12] = (170, 120, 180)  # printed dots
    y, x = np.mgrid[:300, :400]
    haze = np.exp(-((y - 140) ** 2 + (x - 335) ** 2) / 2 / 30**2)[..., None] * np.array([0.02, 0.25, 0.06])  # densities
    image[90:200, 275:] = np.rint(image * np.exp(-haze))[90:200, 275:]
    mask = tissue_mask(image, 8.0)
    assert share(mask, TISSUE) > 0.97
    mask[50:190, 70:270] = False
    assert mask.mean() < 0.002


def test_an_image_full_of_tissue_is_tissue_and_glass_is_none():
    assert tissue_mask(stained(256, 256), 4.0).mean() > 0.99
    noise = np.random.default_rng(0).integers(-2, 3, (256, 256, 3))
    assert not tissue_mask((np.array(GLASS) + noise).astype(np.uint8), 4.0).any()


@pytest.mark.parametrize("side", [64, 96, 300])
def test_small_tiles_may_be_tissue_though_smaller_than_a_piece(tmp_path, side):
    Image.fromarray(stained(side, side)).save(tmp_path / "tile.png")
    Image.fromarray(np.full((side, side, 3), GLASS, np.uint8)).save(tmp_path / "glass.png")
    for mpp in (None, 0.25, 1.0):
        assert find_tissue(open_image(tmp_path / "tile.png"), mpp).mean() > 0.95
        assert not find_tissue(open_image(tmp_path / "glass.png"), mpp).any()


def test_an_image_is_looked_at_in_a_view_of_8_um(tmp_path):
    image = np.full((1600, 2400, 3), GLASS, np.uint8)
    image[400:1200, 600:1800] = stained(800, 1200)
    Image.fromarray(image).save(tmp_path / "slide.png")
    mask = find_tissue(open_image(tmp_path / "slide.png"), 1.0)
    assert mask.shape == (200, 300)
    truth = np.zeros(mask.shape, bool)
    truth[50:150, 75:225] = True
    assert (mask == truth).mean() > 0.98
