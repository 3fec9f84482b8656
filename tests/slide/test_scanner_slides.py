"""Slides of scanners: the colours and the geometry that OpenSlide gives, whatever the file is."""

import shutil

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scanner_files import jpeg, jpeg_2000_ycbcr, write_mrxs, write_ndpi, write_ome, write_svs
from slide_making import tissue

from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image, slide_info

RGB = tissue(512, 768)
ODD = tissue(511, 767, seed=3)


def halved(rgb):
    height, width = (n // 2 for n in rgb.shape[:2])
    boxes = rgb[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(float)
    return np.rint(boxes.mean((1, 3))).astype(np.uint8)


def missing(y, x):
    return y < 128 and 128 <= x < 384


def tiled(path, levels):
    """A pyramid of pages, as libvips writes it."""
    with tifffile.TiffWriter(path) as tif:
        for number, level in enumerate(levels):
            more = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate", "metadata": None}
            tif.write(level, subfiletype=min(number, 1), resolution=(20000 / 2**number,) * 2, resolutionunit=3, **more)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """File name -> what was put in."""
    folder = tmp_path_factory.mktemp("scanners")
    for name, rgb in (("", RGB), ("-odd", ODD)):
        levels = [rgb, halved(rgb), halved(halved(rgb))]
        write_svs(folder / f"jpeg{name}.svs", levels, jpeg, 7)
        write_svs(folder / f"j2k{name}.svs", levels, jpeg_2000_ycbcr, 33003)
        write_svs(folder / f"sparse{name}.svs", levels[:1], jpeg_2000_ycbcr, 33003, without=missing)
        write_ndpi(folder / f"jpegs{name}.ndpi", levels)
        write_ome(folder / f"ome{name}.ome.tif", levels)
        tiled(folder / f"pages{name}.tif", levels)
        Image.fromarray(rgb).save(folder / f"plain{name}.png")
    write_mrxs(folder / "whole.mrxs", [RGB, halved(RGB)])
    write_mrxs(folder / "sparse.mrxs", [RGB, halved(RGB)], without=missing)
    return folder


NAMES = [f"{n}{odd}{s}" for n, s in (("jpeg", ".svs"), ("j2k", ".svs"), ("sparse", ".svs"), ("jpegs", ".ndpi"),
         ("ome", ".ome.tif"), ("pages", ".tif")) for odd in ("", "-odd")] + ["whole.mrxs", "sparse.mrxs"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_those_of_openslide(slides, name):
    ours, theirs = open_image(slides / name), openslide.OpenSlide(str(slides / name))
    levels = [(h, w) for w, h in theirs.level_dimensions]
    assert ours.mpp == pytest.approx(0.5)
    for level, (height, width) in enumerate(levels):  # of levels in SubIFDs OpenSlide knows none
        assert ours.levels[level] == (height, width)
        seen = theirs.read_region((0, 0), level, (width, height))
        white = Image.new("RGBA", seen.size, "white")
        expected = np.asarray(Image.alpha_composite(white, seen).convert("RGB")).astype(float)
        pixels = ours.read(level, Box(0, 0, height, width))
        assert np.abs(pixels.reshape(-1, 3).mean(0) - expected.reshape(-1, 3).mean(0)).max() <= 1
        assert np.abs(pixels - expected).mean() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_stored_is_white_and_the_rest_as_it_was(slides, name):
    truth = ODD if "odd" in name else RGB
    pixels = open_image(slides / name).read(0, Box(0, 0, *truth.shape[:2])).astype(float)
    if "sparse" in name:
        assert (pixels[:120, 136:376] == 255).all()
        pixels, truth = pixels[128:], truth[128:]
    assert np.abs(pixels - truth).mean() < 3  # JPEG
    assert np.abs(pixels.reshape(-1, 3).mean(0) - truth.reshape(-1, 3).mean(0)).max() < 1.5  # OpenSlide rounds YCbCr down


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([n for n in NAMES if "sparse" not in n]),
    st.sampled_from([0.5, 0.61, 1.0, 1.3, 2.0, 3.7]),
    st.tuples(*[st.floats(0, 0.8)] * 2),
    st.integers(8, 90),
)
def test_the_same_place_in_every_file(slides, name, mpp, at, side):
    """A box at any um/px shows what the plain picture shows there: no reader and no level moves it."""
    source, plain = open_image(slides / name), open_image(slides / ("plain-odd.png" if "odd" in name else "plain.png"))
    canvas = source.canvas(mpp)
    y, x = (int(share * px) for share, px in zip(at, canvas, strict=True))
    box = Box(y, x, min(canvas[0], y + side), min(canvas[1], x + side))
    difference = source.region(box, canvas).astype(float) - plain.region(box, canvas)
    assert np.abs(difference).mean() < 4, "moved"
    assert np.abs(difference.reshape(-1, 3).mean(0)).max() < 2


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 2), st.tuples(*[st.integers(0, 90)] * 2), st.integers(1, 40))
def test_a_pixel_of_a_level_has_one_value(slides, name, level, corner, side):
    source = open_image(slides / name)
    level = min(level, len(source.levels) - 1)
    whole = source.read(level, Box(0, 0, *source.levels[level]))
    box = Box(*corner, corner[0] + side, corner[1] + side).intersect(Box(0, 0, *source.levels[level]))
    np.testing.assert_array_equal(source.read(level, box), whole[box.slices])


def test_a_format_that_is_refused_is_not_opened_as_another(slides, tmp_path):
    shutil.copy(slides / "whole.mrxs", tmp_path)
    for make in (lambda: None, (tmp_path / "whole").mkdir, (tmp_path / "whole" / "Slidedat.ini").touch):
        make()
        with pytest.raises(ImageError, match=r"whole\.mrxs: OpenSlide .*; (bring the folder|copy it again)"):
            open_image(tmp_path / "whole.mrxs")


@pytest.mark.parametrize("suffix", ["svs", "ndpi", "scn", "bif", "mrxs", "vms", "dcm"])
def test_a_picture_named_like_a_slide_is_refused(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", format="PNG")
    with pytest.raises(ImageError, match=f"OpenSlide finds no {suffix} slide in it"):
        open_image(tmp_path / f"a.{suffix}")


def test_an_index_that_is_an_overview_is_no_slide(tmp_path):
    """Olympus' ``X.vsi`` is a TIFF of label and overview; the slide lies in the folder ``_X_``."""
    tifffile.imwrite(tmp_path / "a.vsi", RGB, photometric="rgb")
    with pytest.raises(ImageError, match=r"a\.vsi: OpenSlide finds no vsi slide in it; export it as OME-TIFF"):
        open_image(tmp_path / "a.vsi")


def test_a_damaged_place_leaves_the_rest_readable(tmp_path):
    """A handle of OpenSlide that failed once fails for ever: it is opened again."""
    write_mrxs(tmp_path / "a.mrxs", [RGB, halved(RGB)])
    data = tmp_path / "a" / "Data0000.dat"
    content = bytearray(data.read_bytes())
    content[:200] = bytes(200)
    data.write_bytes(content)
    image = open_image(tmp_path / "a.mrxs")
    for _ in range(2):
        with pytest.raises(ImageError, match=r"a\.mrxs: truncated or damaged"):
            image.read(0, Box(0, 0, 32, 32))
        assert np.abs(image.read(0, Box(384, 384, 512, 512)).astype(int) - RGB[384:, 384:512]).mean() < 3


def test_information_names_reader_and_place_of_um_per_px(slides):
    info = slide_info(slides / "j2k.svs")
    assert info.reader.startswith("OpenSlide")
    assert "aperio" in info.reader
    assert info.mpp == (0.5, 0.5)
    assert "aperio" in info.mpp_source
    assert info.others == ("thumbnail 192 x 128",)
    assert not info.notes
    assert "768 x 512 px, 0.384 x 0.256 mm" in "\n".join(info.lines())


def test_a_decimal_comma_and_an_objective_that_does_not_fit(tmp_path):
    write_svs(tmp_path / "a.svs", [RGB], jpeg, 7, mpp="0,250000")
    image = open_image(tmp_path / "a.svs")
    assert image.mpp == pytest.approx(0.25)
    assert len(image.notes) == 1
    assert "objective 20x" in image.notes[0]
