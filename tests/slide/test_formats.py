"""Files are opened by the loader of their kind or refused by name, and what is too large before anything is decoded."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile

from wsigen.base.errors import ImageError
from wsigen.slide.formats import WHOLE_BYTES, open_picture
from wsigen.slide.reading import open_image

ROOT = Path(__file__).parents[2]

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="60000" height="60000"><rect width="9" height="9"/></svg>'


def png(width, height, rows=b""):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (SVG, "SVG"), (b'<?xml version="1.0"?>' + SVG, "SVG"), (b"\xef\xbb\xbf  " + SVG, "SVG"), (b"%PDF-1.7 ...", "PDF"),
        (b"GIF89a...........", "GIF"), (b"BM" + bytes(60), "BMP"), (b"\xb6\xa6\xf2\x08" + bytes(80), "libvips"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"), (b"\0\0\0\x18ftypheic" + bytes(40), "HEIF"),
        (b"push graphic-context\nviewbox 0 0 9 9\n", "not an image"), (b"", "not an image"), (b"PK\x03\x04....", "ZIP"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".png", ".svg", ".tif", ".jpg"])
def test_other_formats_are_refused_by_name(tmp_path, data, name, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\..*PNG") as caught:
        open_image(path)
    assert name in str(caught.value)
    with pytest.raises(ImageError, match="save it as PNG"):
        open_picture(path)


def test_large_pictures_are_refused_by_their_header(tmp_path):
    """100,000 x 100,000 px in a few bytes: neither memory nor a temporary file is filled."""
    (tmp_path / "a.png").write_bytes(png(100_000, 100_000, bytes(1000)))
    tifffile.imwrite(tmp_path / "tile.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", tile=(64, 64))
    _set_tags(tmp_path / "tile.tif", {256: 60_000, 257: 60_000, 322: 60_000, 323: 60_000})
    code = (
        "import sys\nfrom benchmarks.processes import peak_rss\n"
        "from wsigen.slide.reading import open_image\nfrom wsigen.base.errors import ImageError\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        open_image(path)\n        sys.exit('was opened')\n"
        "    except ImageError as error:\n        print(error)\n"
        "print(peak_rss())\n"
    )
    files = [str(tmp_path / "a.png"), str(tmp_path / "tile.tif")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=60, cwd=ROOT)
    picture, tile, peak = done.stdout.splitlines()
    assert "100000 x 100000 px, 9.3 GiB" in picture
    assert "tiled pyramid" in picture
    assert "60000 x 60000 px" in tile
    assert "in memory at once" in tile
    assert int(peak) < 300 * 2**20


def test_what_is_decoded_in_memory_is_refused_earlier(tmp_path, monkeypatch):
    monkeypatch.setattr("wsigen.slide.formats.AT_ONCE_BYTES", 3 * 100 * 100)
    pixels = np.zeros((101, 100, 3), np.uint8)
    image = pyvips.Image.new_from_array(pixels)
    for name, options in (("a.webp", {}), ("a.png", {"interlace": True}), ("a.jpg", {"interlace": True})):
        image.write_to_file(str(tmp_path / name), **options)
        with pytest.raises(ImageError, match=r"100 x 101 px, .* in memory at once"):
            open_image(tmp_path / name)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=101)
    with pytest.raises(ImageError, match=r"100 x 101 px, .* in memory at once"):
        open_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=50)
    image.write_to_file(str(tmp_path / "a.png"), interlace=False)
    assert open_image(tmp_path / "a.tif").height == open_image(tmp_path / "a.png").height == 101


@pytest.mark.parametrize(
    ("side", "message"), [(2_000_000, "at most 1,000,000 px a side"), (128_000, "lists 4 of the 4000 tiles")]
)
def test_a_slide_that_is_longer_than_its_tiles_is_refused(tmp_path, side, message):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((128, 128, 3), np.uint8), photometric="rgb", tile=(64, 64))
    _set_tags(path, {257: side})
    with pytest.raises(ImageError, match=message):
        open_image(path)


def test_a_tiled_picture_may_be_larger(tmp_path):
    """Of a label image in tiles only what is asked for is decoded."""
    path = tmp_path / "labels.tif"
    side = 48_000
    with tifffile.TiffWriter(path) as tif:
        cells = (b"" if i else zlib.compress(bytes(512 * 512)) for i in range((-(-side // 512)) ** 2))
        tif.write(cells, shape=(side, side), dtype="uint8", tile=(512, 512), compression="deflate", metadata=None)
    assert side**2 > WHOLE_BYTES
    assert open_picture(path).width == side


CUT = """
import os, sys
from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image

for path in sys.argv[1:]:
    image, before = open_image(path), os.stat(path)
    os.truncate(path, before.st_size // 3)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # so that it is not opened anew
    try:
        image.region(Box(0, 0, 700, 700), (700, 700))
        print(path, "read")
    except ImageError as error:
        print(str(error))
"""


def test_what_is_cut_while_it_is_open_is_one_line(tmp_path):
    """In a process of its own, which a file that is mapped into memory would kill; or read, if it was in memory."""
    pixels = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    image = pyvips.Image.new_from_array(pixels)
    for name in ("a.png", "a.jpg", "a.webp", "strips.tif"):
        image.write_to_file(str(tmp_path / name))
    tifffile.imwrite(tmp_path / "tiles.tif", pixels, photometric="rgb", tile=(64, 64), compression="deflate")
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", CUT, *files], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(files)
    for path, line in zip(files, lines, strict=True):
        assert line == f"{path} read" if path.endswith(("jpg", "webp")) else "truncated or damaged" in line


def _set_tags(path, values):
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag, value in values.items():
            tif.pages.first.tags[tag].overwrite(value)
