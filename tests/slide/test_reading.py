"""Images and slides: boxes of any canvas, and files that cannot be used."""

import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image


def picture(height, width):
    y, x = np.mgrid[:height, :width]
    channels = [128 + 90 * np.sin(x / 17 + y / 40), 128 + 90 * np.cos(y / 23), (x + 2 * y) % 200]
    return np.stack(channels, -1).astype(np.uint8)


PIXELS = picture(300, 400)
SLIDE = picture(1024, 1536)


def shrink(image, k):
    h, w, _ = image.shape
    mean = image.reshape(h // k, k, w // k, k, 3).astype(float).mean((1, 3))
    return np.rint(mean).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    Image.fromarray(PIXELS).save(folder / "a.png")
    Image.fromarray(PIXELS).save(folder / "a.jpg", quality=95, subsampling=0)
    options = {
        "tile": (128, 128),
        "photometric": "rgb",
        "compression": "deflate",
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(folder / "slide.tif") as tiff:
        tiff.write(SLIDE, resolution=(20000, 20000), subifds=2, metadata=None, **options)
        for k in (2, 4):
            tiff.write(shrink(SLIDE, k), resolution=(20000 / k,) * 2, subfiletype=1, metadata=None, **options)
    return folder


def test_image_at_its_own_size(folder):
    image = open_image(folder / "a.png")
    assert (image.height, image.width, image.mpp) == (300, 400, None)
    box = Box(17, 30, 120, 290)
    np.testing.assert_array_equal(image.region(box, (300, 400)), PIXELS[box.slices])


def test_area_mean_down_and_smooth_up(folder):
    image = open_image(folder / "a.png")
    np.testing.assert_allclose(image.region(Box(0, 0, 75, 100), (75, 100)), shrink(PIXELS, 4), atol=1)
    up = image.region(Box(0, 0, 900, 1200), (900, 1200))
    np.testing.assert_allclose(up[1::3, 1::3], PIXELS, atol=1)


def test_jpeg(folder):
    got = open_image(folder / "a.jpg").region(Box(0, 0, 300, 400), (300, 400))
    assert np.abs(got[..., :2].astype(int) - PIXELS[..., :2]).mean() < 4


def test_slide_levels(folder):
    image = open_image(folder / "slide.tif")
    assert image.levels == [(1024, 1536), (512, 768), (256, 384)]
    assert image.by_region
    assert image.mpp == pytest.approx(0.5)
    for k in (1, 2, 4, 8):
        canvas = (1024 // k, 1536 // k)
        want = SLIDE if k == 1 else shrink(SLIDE, k)
        np.testing.assert_allclose(image.region(Box(0, 0, *canvas), canvas), want, atol=2)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["a.png", "slide.tif"]),
    st.sampled_from([(150, 201), (300, 400), (777, 1000), (64, 90)]),
    st.tuples(*[st.floats(0, 0.9)] * 2),
    st.integers(1, 60),
)
def test_any_box_equals_the_whole(folder, name, canvas, corner, side):
    image = open_image(folder / name)
    whole = image.region(Box(0, 0, *canvas), canvas)
    y, x = int(corner[0] * canvas[0]), int(corner[1] * canvas[1])
    box = Box(y, x, min(canvas[0], y + side), min(canvas[1], x + side))
    np.testing.assert_array_equal(image.region(box, canvas), whole[box.slices])


def test_large_reads_are_cut(folder, monkeypatch):
    image = pickle.loads(pickle.dumps(open_image(folder / "slide.tif")))
    want = image.region(Box(3, 5, 90, 140), (100, 150))
    monkeypatch.setattr("wsigen.slide.reading.READ_PX", 900)
    np.testing.assert_array_equal(image.region(Box(3, 5, 90, 140), (100, 150)), want)
    assert image.region(Box(3, 5, 3, 9), (100, 150)).shape == (0, 4, 3)


def test_grey_alpha_and_16_bit(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    alpha = np.concatenate([PIXELS, np.zeros((300, 400, 1), np.uint8)], -1)
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    tifffile.imwrite(tmp_path / "deep.tif", PIXELS.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(tmp_path / "tiled.tif", PIXELS[..., 0], tile=(64, 64))
    box = Box(0, 0, 300, 400)
    read = {n: open_image(tmp_path / n).region(box, (300, 400)) for n in ("grey.png", "alpha.png", "deep.tif")}
    np.testing.assert_array_equal(read["grey.png"], PIXELS[..., :1].repeat(3, -1))
    assert (read["alpha.png"] == 255).all()
    np.testing.assert_allclose(read["deep.tif"], PIXELS, atol=1)
    tiled = open_image(tmp_path / "tiled.tif").region(box, (300, 400))
    np.testing.assert_array_equal(tiled, read["grey.png"])


def fails(path, *parts):
    with pytest.raises(ImageError) as caught:
        open_image(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (path.name, *parts):
        assert part in message, message


def test_missing_text_and_small(tmp_path):
    fails(tmp_path / "none.png", "no such image", "check the path")
    (tmp_path / "text.png").write_text("hello")
    fails(tmp_path / "text.png", "not an image")
    Image.fromarray(PIXELS[:63]).save(tmp_path / "small.png")
    fails(tmp_path / "small.png", "400 x 63", "at least 64")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "slide.tif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated(folder, tmp_path, name, share):
    data = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    fails(tmp_path / name, "truncated", "copy")
