"""Slides of other kinds as OME-TIFF: the same pixels, and then they can be replaced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ome_types import from_xml
from scanner_files import write_mrxs
from slide_making import make_slide, tissue

from wsigen.base.errors import ConfigError, ImageError, OutputError
from wsigen.base.geometry import Box
from wsigen.slide.edited_description import edited_description
from wsigen.slide.marks import synthetic_mark
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.reading import open_image
from wsigen.slide.rewrite import write_ome_tiff
from wsigen.slide.splice import OtherFormatError, Patch, replace_pixels
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import area_mean

PICTURE = tissue(640, 768)


def test_a_slide_of_another_kind_is_written_and_edited(tmp_path: Path) -> None:
    path, copy, output = tmp_path / "a.mrxs", tmp_path / "b.ome.tiff", tmp_path / "c.ome.tiff"
    write_mrxs(path, [PICTURE, area_mean(PICTURE, 2)])
    box = Box(100, 100, 300, 350)
    patch = Patch(box, 255 - PICTURE[box.slices], np.ones(box.shape, bool))
    with pytest.raises(OtherFormatError):
        replace_pixels(path, output, [patch])
    blocks: list[int] = []
    spec = write_ome_tiff(path, copy, compression="deflate", note=lambda done, of: blocks.append((done, of)))
    assert len(blocks) == len(spec.grid)
    before, after = open_image(path), open_image(copy)
    whole = Box(0, 0, 640, 768)
    assert (before.read(0, whole) == after.read(0, whole)).all()
    assert after.mpp == pytest.approx(before.mpp)
    with tifffile.TiffFile(copy) as tif:
        text = tif.ome_metadata
    assert "ynthetic" not in text
    assert "copy_of: a.mrxs" in from_xml(text, validate=True).images[0].description
    replace_pixels(copy, output, [patch], description=edited_description(text, 1, {}, output.name))
    assert (open_image(output).read(0, box) == patch.pixels).all()
    with tifffile.TiffFile(output) as tif:
        assert "partly synthetic: 1 region" in from_xml(tif.ome_metadata, validate=True).images[0].description
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.mrxs", "b.ome.tiff", "c.ome.tiff"}


def test_what_does_not_say_its_resolution_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="rgb")
    with pytest.raises(ImageError, match="um/px"):
        write_ome_tiff(tmp_path / "a.tif", tmp_path / "b.ome.tiff")
    assert write_ome_tiff(tmp_path / "a.tif", tmp_path / "b.ome.tiff", mpp=0.5).mpp == 0.5


def test_the_slide_itself_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb")
    was = path.read_bytes()
    with pytest.raises(ConfigError, match="never changed"):
        write_ome_tiff(path, path, mpp=0.5)
    with pytest.raises(OutputError, match="no such folder"):
        write_ome_tiff(path, tmp_path / "none" / "b.ome.tiff", mpp=0.5)
    assert path.read_bytes() == was
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="rgb")
    monkeypatch.setattr(Spool, "write", full)
    with pytest.raises(OutputError, match="free disk space"):
        write_ome_tiff(tmp_path / "a.tif", tmp_path / "b.ome.tiff", mpp=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("mark", ["true", "partly"])
def test_a_copy_of_a_synthetic_slide_says_so(tmp_path: Path, mark: str) -> None:
    path = make_slide(tmp_path, PyramidSpec(768, 640, 0.5, 20), PICTURE)
    if mark == "partly":
        tifffile.tiffcomment(path, edited_description("", 1, {}, path.name).encode())
    write_ome_tiff(path, tmp_path / "copy.ome.tiff", mpp=0.5)
    assert synthetic_mark(path) == synthetic_mark(tmp_path / "copy.ome.tiff") == mark
