"""Tiles found by the table, with nothing but the bytes of the file, are those that tifffile finds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from scanner_files import jpeg, write_svs
from slide_making import tissue
from viewing_making import small_slide

from wsigen.viewing.tile_table import tile_table


def numbers(data: bytes, place: list[int], count: int, little: bool) -> tuple[int, ...]:
    at, size = place
    return struct.unpack_from(f"{'<' if little else '>'}{count}{ {2: 'H', 4: 'I', 8: 'Q'}[size] }", data, at)


def check(path: Path, table: dict[str, Any]) -> None:
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        levels = [series.keyframe for series in tif.series[0].levels]
        assert len(levels) == len(table["levels"])
        for page, level in zip(levels, table["levels"], strict=True):
            count = level["across"] * level["down"]
            assert numbers(data, level["offsets"], count, table["little"]) == page.dataoffsets
            assert numbers(data, level["counts"], count, table["little"]) == page.databytecounts


@pytest.mark.parametrize(("width", "height"), [(1500, 1100), (512, 2049)])
def test_slides_of_ours(tmp_path: Path, width: int, height: int) -> None:
    path = small_slide(tmp_path, width, height)
    table = tile_table(path)
    assert table is not None
    assert (table["tile"], table["compression"], table["little"]) == (512, "jpeg", True)
    check(path, table)


def test_tiles_alone_are_whole_pictures(tmp_path: Path) -> None:
    path = small_slide(tmp_path, 1024, 1024)
    table = tile_table(path)
    assert table is not None
    level = table["levels"][0]
    data = path.read_bytes()
    (at,), (size,) = (numbers(data, level[name], 1, True) for name in ("offsets", "counts"))
    assert np.array_equal(imagecodecs.jpeg8_decode(data[at : at + size]), tifffile.imread(path)[:512, :512])


def test_deflate(tmp_path: Path) -> None:
    path = small_slide(tmp_path, 1024, 1024, compression="deflate")
    table = tile_table(path)
    assert table is not None
    assert (table["compression"], table["differences"]) == ("deflate", True)
    check(path, table)


@pytest.mark.parametrize(("bigtiff", "byteorder"), [(False, "<"), (True, ">")])
def test_other_tiffs(tmp_path: Path, bigtiff: bool, byteorder: str) -> None:
    path, rgb = tmp_path / "other.tif", tissue(600, 700)
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as tif:  # type: ignore[arg-type]
        options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "subsampling": (2, 2)}
        tif.write(rgb, **options)
    table = tile_table(path)
    assert table is not None
    assert (table["little"], len(table["levels"])) == (byteorder == "<", 1)
    check(path, table)


def test_what_browsers_cannot_read_is_left_to_the_server(tmp_path: Path) -> None:
    rgb = tissue(600, 700)
    tifffile.imwrite(tmp_path / "strips.tif", rgb, photometric="rgb")
    tifffile.imwrite(tmp_path / "lzw.tif", rgb, photometric="rgb", tile=(256, 256), compression="lzw")
    tifffile.imwrite(tmp_path / "grey.tif", rgb[..., 0], photometric="minisblack", tile=(256, 256), compression="deflate")
    imagecodecs.imwrite(tmp_path / "picture.png", rgb)
    write_svs(tmp_path / "scanner.svs", [rgb], jpeg, 7)
    for path in tmp_path.iterdir():
        assert tile_table(path) is None, path.name
