"""Pixels replaced in a slide: what is new, what stays byte for byte, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from slide_making import make_slide, tissue

from wsigen.base.errors import ConfigError, ImageError, WsigenError
from wsigen.base.geometry import Box
from wsigen.slide.patched_pixels import patched
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.reading import open_image
from wsigen.slide.splice import Patch, replace_pixels, restore
from wsigen.slide.tiles import area_mean

HEIGHT, WIDTH = 1100, 1500
BOX = Box(301, 420, 900, 1203)


def ellipse(box: Box) -> NDArray[np.bool_]:
    """An ellipse that just fits a box."""
    y, x = np.ogrid[: box.height, : box.width]
    return ((y + 0.5) / box.height * 2 - 1) ** 2 + ((x + 0.5) / box.width * 2 - 1) ** 2 < 1


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    return tissue(HEIGHT, WIDTH)


@pytest.fixture(scope="module", params=["jpeg", "deflate"])
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rgb: NDArray[np.uint8]) -> Path:
    spec = PyramidSpec(WIDTH, HEIGHT, 0.5, 20, request.param)
    return make_slide(tmp_path_factory.mktemp(request.param), spec, rgb)


@pytest.fixture(scope="module")
def patch() -> Patch:
    return Patch(BOX, tissue(*BOX.shape, seed=3), ellipse(BOX))


def levels(path: Path) -> list[NDArray[np.uint8]]:
    """Every level's pixels."""
    image = open_image(path)
    return [image.read(k, Box(0, 0, *size)) for k, size in enumerate(image.levels)]


def above(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """Whether any pixel of each box of ``factor x factor`` is in a mask."""
    height, width = (-(-n // factor) for n in mask.shape)
    whole = np.pad(mask, ((0, height * factor - mask.shape[0]), (0, width * factor - mask.shape[1])))
    return whole.reshape(height, factor, width, factor).any((1, 3))


def test_masked_pixels_are_new_at_every_level_and_others_are_not(
    tmp_path: Path, slide: Path, rgb: NDArray[np.uint8], patch: Patch
) -> None:
    done = replace_pixels(slide, tmp_path / "new.ome.tiff", [patch])
    whole, mask = rgb.copy(), np.zeros(rgb.shape[:2], bool)
    mask[BOX.slices] = patch.mask
    whole[BOX.slices][patch.mask] = patch.pixels[patch.mask]
    jpeg = slide.parent.name.startswith("jpeg")
    for level, (old, new) in enumerate(zip(levels(slide), levels(done.path), strict=True)):
        wanted, here = area_mean(whole, 2**level), above(mask, 2**level)
        error = np.abs(new.astype(int) - wanted)[here]
        assert error.max() == 0 if not jpeg else error.mean() < 4
        blocks = above(here, 16).repeat(16, 0).repeat(16, 1)[: here.shape[0], : here.shape[1]]
        encoded = binary_dilation(blocks, np.ones((3, 3))) if jpeg else here  # smoothed colours look one pixel further
        assert (old[~encoded] == new[~encoded]).all()
        change = done.levels[level]
        assert (change.pixels, change.beside) == (here.sum(), (blocks & ~here).sum() if jpeg else 0)


def test_other_tiles_are_where_and_what_they_were(tmp_path: Path, slide: Path, patch: Patch) -> None:
    done = replace_pixels(slide, tmp_path / "new.ome.tiff", [patch])
    old, new = slide.read_bytes(), done.path.read_bytes()
    with tifffile.TiffFile(slide) as a, tifffile.TiffFile(done.path) as b:
        for level, (was, now) in enumerate(zip(a.series[0].levels, b.series[0].levels, strict=True)):
            touched = 0
            pairs = zip(*(getattr(p.keyframe, n) for p in (was, now) for n in ("dataoffsets", "databytecounts")), strict=True)
            for at, size, at_now, size_now in pairs:
                if (at, size) == (at_now, size_now):
                    assert old[at : at + size] == new[at : at + size]
                else:
                    touched += 1
                    assert at_now >= len(old)
                    assert not any(new[at : at + size])  # what was replaced is not in the file any more
            assert touched == done.levels[level].tiles > 0


def test_the_parent_comes_back_byte_for_byte(tmp_path: Path, slide: Path, patch: Patch) -> None:
    output, undo = tmp_path / "new.ome.tiff", tmp_path / "new.undo"
    done = replace_pixels(slide, output, [patch], description="<OME>other</OME>", undo=undo)
    with tifffile.TiffFile(output) as tif:
        assert tif.pages.first.description == "<OME>other</OME>"
    assert restore(output, undo) == done.parent_sha256
    assert output.read_bytes() == slide.read_bytes()


def test_the_slide_itself_and_pixels_beyond_it_are_refused(tmp_path: Path, slide: Path, patch: Patch) -> None:
    with pytest.raises(ConfigError, match="never changed"):
        replace_pixels(slide, slide, [patch])
    beyond = Patch(BOX.shift(0, WIDTH), patch.pixels, patch.mask)
    with pytest.raises(ConfigError, match="cut them at its edge"):
        replace_pixels(slide, tmp_path / "new.ome.tiff", [beyond])
    assert list(tmp_path.iterdir()) == []


def test_places_for_the_output_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, slide: Path, patch: Patch
) -> None:
    (folder := tmp_path / "folder").mkdir()
    output = tmp_path / "new.ome.tiff"
    for name, undo, message in (
        (folder, tmp_path / "new.undo", "is a folder"),
        (output, folder, "is a folder"),
        (output, folder / ".." / output.name, "is the output itself"),
        (folder / "none" / "new.ome.tiff", None, "no such folder"),
    ):
        with pytest.raises(WsigenError, match=message):
            replace_pixels(slide, name, [patch], undo=undo)
    assert list(tmp_path.iterdir()) == [folder]
    output.write_bytes(b"older")
    with pytest.raises(ImageError, match="no such image"):
        replace_pixels(tmp_path / "none.tif", output, [patch])


def test_a_tile_is_made_of_the_patches_on_it_alone_and_the_last_one_counts(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 100  # of cells that hardly overlap; tiles are larger
    corners = [(y, x) for y in range(0, HEIGHT - side, side) for x in range(0, WIDTH - side, side)]
    boxes = [Box(y, x, y + side + 4, x + side + 4) for y, x in corners]
    patches = [Patch(box, np.full((*box.shape, 3), n, np.uint8), np.ones(box.shape, bool)) for n, box in enumerate(boxes)]
    given = []

    def counted(reader: Any, level: int, box: Box, patches: Sequence[Patch]) -> Any:
        given.append((level, box, patches))
        return patched(reader, level, box, patches)

    monkeypatch.setattr("wsigen.slide.splice.patched", counted)
    for order in (patches, patches[::-1]):
        given.clear()
        done = replace_pixels(slide, tmp_path / "new.ome.tiff", order)
        finest = [(box, here) for level, box, here in given if level == 0]
        assert len(finest) == done.levels[0].tiles
        for box, here in finest:
            assert [p.box for p in here] == [p.box for p in order if p.box.overlaps(box)]
        whole = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for patch in order:
            whole[patch.box.slices] = patch.pixels
        error = np.abs(levels(done.path)[0].astype(int) - whole)[: HEIGHT - side, : WIDTH - side]
        assert error.max() == 0 or (slide.parent.name.startswith("jpeg") and error.mean() < 4)
