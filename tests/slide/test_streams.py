"""Tiles that are pictures of their own say how large they are before they are decoded."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image
from wsigen.slide.streams import demand_size

ENCODERS = {
    7: imagecodecs.jpeg8_encode,
    34712: imagecodecs.jpeg2k_encode,
    50001: imagecodecs.webp_encode,
    34933: imagecodecs.png_encode,
    50002: imagecodecs.jpegxl_encode,
}


@pytest.mark.parametrize("compression", ENCODERS)
@pytest.mark.parametrize("side", [(64, 64), (40, 136), (300, 200), (200, 300), (129, 65)])
def test_what_is_encoded_says_its_size(compression, side):
    data = bytes(ENCODERS[compression](np.zeros((*side, 3), np.uint8)))
    demand_size(compression, data, side)
    demand_size(compression, data, (side[0] - 1, side[1]))  # filled up to whole blocks
    wide = bytes(ENCODERS[compression](np.zeros((side[0], side[1] + 2000, 3), np.uint8)))
    with pytest.raises(ValueError, match=f"holds a picture of {side[1] + 2000} x {side[0]} px"):
        demand_size(compression, wide, side)


@pytest.mark.parametrize("compression", [7, 34712, 50002, 34887, 65000])
@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc4\0\2", b"x" * 100, bytes(100)])
def test_what_says_no_size_is_refused(compression, data):
    with pytest.raises(ValueError, match=r"a JPEG|is not read"):
        demand_size(compression, data, (256, 256))


def test_a_tile_that_holds_a_larger_picture_is_one_line(tmp_path):
    path = tmp_path / "a.tif"
    tile = imagecodecs.jpeg8_encode(np.zeros((900, 800, 3), np.uint8))
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(iter([tile]), shape=(256, 256, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb", compression=7)
    with pytest.raises(ImageError, match="a tile of 256 x 256 px holds a picture of 800 x 900 px"):
        open_image(path).region(Box(0, 0, 64, 64), (128, 128))
