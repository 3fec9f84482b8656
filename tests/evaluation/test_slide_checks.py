"""A pyramid against itself, classes against layout and picture."""

import math

import numpy as np
import pytest
import tifffile
from drawing import feature, square, write_layout
from metric_pictures import save, slide_with_tissue, texture
from specs import manifest_of

from wsigen.evaluation.sides.sides import open_side
from wsigen.evaluation.slide_checks import class_areas, level_agreement
from wsigen.slide.reading import open_image


def pyramid(path, levels):
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            more = {"subifds": len(levels) - 1} if i == 0 else {"subfiletype": 1}
            tiff.write(level, photometric="rgb", tile=(128, 128), compression="adobe_deflate", metadata=None, **more)
    return open_image(path)


def halved(x):
    return np.rint(x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, 3).mean((1, 3))).astype(np.uint8)


def test_levels_that_are_means_agree(tmp_path):
    fine = texture(512, 768, 0)
    found = level_agreement(pyramid(tmp_path / "a.tiff", [fine, halved(fine), halved(halved(fine))]))
    assert [round(a.downsample) for a in found] == [2, 4]
    assert all(a.difference < 0.6 for a in found)


def test_levels_of_another_picture_do_not(tmp_path):
    fine = texture(512, 768, 0)
    found = level_agreement(pyramid(tmp_path / "a.tiff", [fine, halved(texture(512, 768, 1)), halved(halved(fine)) + 9]))
    assert found[0].difference > 5
    assert found[1].difference == pytest.approx(9, abs=0.6)
    assert found[1].psnr == pytest.approx(20 * math.log10(255 / 9), abs=0.5)


def padded(x):
    """Halved, odd sizes rounded up: the last row or column stands for the one that is missing."""
    return halved(np.pad(x, [(0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)], mode="edge"))


def cut(x):
    """Halved, odd sizes rounded down."""
    return halved(x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2])


@pytest.mark.parametrize("half", [padded, cut])
@pytest.mark.parametrize("size", [(512, 768), (514, 771), (525, 769)])
def test_levels_of_odd_sizes_agree(tmp_path, half, size):
    """They end in the middle of a px; stretched to whole ones, the places of both pictures drift apart by nearly a px."""
    levels = [texture(*size, 0, sigma=3.0)]
    for _ in range(3):
        levels.append(half(levels[-1]))
    found = level_agreement(pyramid(tmp_path / "a.tiff", levels))
    assert [round(a.downsample) for a in found] == [2, 4, 8]
    assert all(a.difference < 0.6 for a in found), found


def test_an_image_of_one_level_has_nothing_to_compare(tmp_path):
    assert level_agreement(open_image(save(tmp_path / "a.png", texture(100, 100, 0)))) == []


def areas_of(side, **manifest):
    return {a.name.casefold(): a for a in class_areas(side, 0, manifest_of(**manifest))}


def test_areas_drawn(tmp_path):
    """Tumour is drawn on 100 x 200 px, of which the picture shows half as tissue."""
    save(tmp_path / "s.tiff", slide_with_tissue(512, 512, box=(0, 0, 256, 512)), mpp=0.5)
    write_layout(tmp_path / "s.geojson", feature("Tumor", [[100, 206], [300, 206], [300, 306], [100, 306]]))
    areas = areas_of(open_side("synthetic", tmp_path / "s.tiff"))
    assert areas["tumor"].asked is None
    assert areas["tumor"].drawn == pytest.approx(20000, rel=0.1)
    assert areas["tumor"].tissue == pytest.approx(0.5, abs=0.12)
    assert areas["(no annotation)"].drawn == pytest.approx(512 * 512 - 20000, rel=0.02)
    (tmp_path / "s.geojson").unlink()
    assert class_areas(open_side("synthetic", tmp_path / "s.tiff"), 0, None) == []


def test_areas_asked_for_are_those_of_the_class_map_the_slide_was_made_from(tmp_path):
    """By the manifest; what is drawn, by the GeoJSON beside the slide and not by what the manifest says of itself."""
    save(tmp_path / "s.tiff", texture(512, 512, 0), mpp=0.5)
    write_layout(tmp_path / "s.geojson", feature("Tumor", square(0, 0, 256)), feature("Stroma", square(256, 0, 256)))
    side = open_side("synthetic", tmp_path / "s.tiff")
    found = areas_of(side, area_px={"tumor": 131072.0, "Stroma": 65536.0, "Necrosis": 900.0, "Fat": 0.0})
    assert (found["tumor"].asked, found["stroma"].asked) == (131072, 65536)
    assert found["tumor"].drawn == pytest.approx(65536, rel=0.05)
    assert (found["necrosis"].asked, found["necrosis"].drawn) == (900, 0)
    assert "fat" not in found
