"""um/px from everything a file may say, and what contradicts."""

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scanner_files import write_ome
from slide_making import tissue

from wsigen.slide.reading import open_image, slide_info
from wsigen.slide.resolution import Stated, decide, from_ome, from_tags, from_text, in_um

RGB = tissue(128, 192)


@pytest.mark.parametrize(
    ("value", "unit"),
    [(0.5, "µm"), (0.5, "\u03bcm"), (0.5, "micron"), (0.5, "microns"), (500, "nm"), (5e-4, "mm"), (5e-5, "cm"), (5e-7, "m"),
     (5e-7 / 0.0254, "in"), (5000, "Å"), (0.5, "um"), (0.5, "Micrometers"), (5e5, "pm"), (0.5, "\\u00B5m")],
)  # fmt: skip
def test_any_unit_of_length(value, unit):
    assert in_um(value, unit) == pytest.approx(0.5)
    ome = from_ome({"PhysicalSizeX": str(value), "PhysicalSizeXUnit": unit})
    assert ome is not None
    assert ome.x == pytest.approx(0.5)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "", "s"])
def test_what_is_no_length(unit):
    assert in_um(1.0, unit) is None


@pytest.mark.parametrize("text", ["Aperio |MPP = 0.500000", "x|MPP = 0,500000|y", "MPP=0.5", "mpp: 5e-1"])
def test_texts_of_scanners(text):
    stated = from_text(text)
    assert stated is not None
    assert stated.x == 0.5


def test_tags_and_imagej():
    assert from_tags([(20000, 1), (20000, 1)], 3) == Stated(0.5, 0.5, "resolution tags")
    assert from_tags([(50800, 1), (50800, 1)], 2).x == pytest.approx(0.5)
    assert from_tags([(2, 1), (2, 1)], 1) is None
    assert from_tags([(2, 1), (2, 1)], 1, "ImageJ=1.53k\nunit=micron\n") == Stated(0.5, 0.5, "ImageJ")
    assert from_tags([(0, 0), (1, 0)], 3) is None


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_nothing_is_taken_that_no_microscope_has(y, x):
    taken = decide([Stated(y, x, "tags")])
    if taken.mpp is None:
        assert not 0.05 <= y <= 20 or not 0.05 <= x <= 20
        assert "no resolution of a microscope" in taken.source
    else:
        assert taken.mpp == pytest.approx((y, x), rel=0.011)
        assert bool(taken.notes) == (taken.mpp[0] != taken.mpp[1])


def test_contradictions_are_told():
    taken = decide([Stated(0.5, 0.5, "OME-XML"), Stated(0.25, 0.25, "tags"), Stated(350, 350, "print")])
    assert taken.mpp == (0.5, 0.5)
    assert taken.notes == ["um/px contradict: OME-XML says 0.5, tags 0.25; OME-XML is taken"]
    assert not decide([Stated(0.5, 0.5, "OME-XML"), Stated(0.501, 0.5, "tags")]).notes


def write_imagej(path):
    tifffile.imwrite(path, RGB[..., 1], imagej=True, resolution=(2, 2), metadata={"unit": "micron"})


@pytest.mark.parametrize(
    ("name", "write", "source"),
    [
        ("a.ome.tif", lambda p: write_ome(p, [RGB], metadata={"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm"}), "OME-XML"),
        ("b.tif", lambda p: tifffile.imwrite(p, RGB, photometric="rgb", resolution=(20000, 20000), resolutionunit=3), "tags"),
        ("c.tif", write_imagej, "ImageJ"),
        ("d.png", lambda p: Image.fromarray(RGB).save(p, dpi=(50800, 50800)), "PNG"),
        ("e.jpg", lambda p: Image.fromarray(RGB).save(p, dpi=(50800, 50800)), "JPEG"),
    ],
)
def test_files_that_say_half_a_um(tmp_path, name, write, source):
    write(tmp_path / name)
    info = slide_info(tmp_path / name)
    assert info.mpp is not None
    assert info.mpp == pytest.approx((0.5, 0.5), rel=0.01)
    assert source in info.mpp_source


def test_print_resolutions_are_none(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", dpi=(72, 72))
    assert open_image(tmp_path / "a.jpg").mpp is None
    assert "no resolution of a microscope" in slide_info(tmp_path / "a.jpg").mpp_source


def test_pixels_that_are_not_square_become_so(tmp_path):
    """A picture of pixels twice as high as wide: its canvas has the shape of the tissue, and every reader of it agrees."""
    write_ome(tmp_path / "a.ome.tif", [RGB[::2]], metadata={"PhysicalSizeY": 1.0})
    image = open_image(tmp_path / "a.ome.tif")
    assert (image.mpp, image.aspect) == (0.5, 2.0)
    assert image.canvas(0.5) == RGB.shape[:2]
    assert image.canvas(1.0) == (64, 96)
    assert "not square" in image.notes[0]
    assert "0.5 across, 1 down" in "\n".join(slide_info(tmp_path / "a.ome.tif").lines())


def test_what_somebody_states_goes_before_the_file(tmp_path):
    write_ome(tmp_path / "a.ome.tif", [RGB[::2]], metadata={"PhysicalSizeY": 1.0})
    image = open_image(tmp_path / "a.ome.tif")
    assert image.stated(None) is image
    stated = image.stated(0.25)
    assert (stated.mpp, stated.aspect) == (0.25, 1.0)
    assert "stated as 0.25, the file says 0.5" in stated.notes[-1]
