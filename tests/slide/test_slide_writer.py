from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from slide_making import exact_mean, fill, make_slide, tissue

from wsigen.base.errors import DamagedChunkError, OutputError
from wsigen.slide import writer
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import EncodedBlock, encode_tile
from wsigen.slide.writer import level0_sha256, link_subifds, scratch_bytes, write_slide
from wsigen.storage.files import sha256

CASES = [
    (700, 513, "jpeg"),
    (2049, 1537, "deflate"),
    (4096, 2048, "jpeg"),
    (2500, 2100, "jpeg"),
    (4097, 2050, "deflate"),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}x{c[1]}-{c[2]}")
def slide(request, tmp_path_factory):  # type: ignore[no-untyped-def]
    """(path, spec, pixels) of a slide."""
    width, height, compression = request.param
    spec = PyramidSpec(width, height, 0.4237, 23.6, compression)
    rgb = tissue(height, width)
    return make_slide(tmp_path_factory.mktemp("slide"), spec, rgb), spec, rgb


def sizes(spec: PyramidSpec) -> list[tuple[int, int]]:
    return [spec.level_size(k)[::-1] for k in range(spec.levels)]


def region(rgb: np.ndarray, side: int = 256) -> tuple[int, int, np.ndarray]:
    """The lower right corner: the edge tiles."""
    y, x = rgb.shape[0] - side, rgb.shape[1] - side
    return y, x, rgb[y:, x:]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_every_level_is_the_area_mean_of_the_first(slide) -> None:  # type: ignore[no-untyped-def]
    path, spec, rgb = slide
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome
        assert len(tiff.series) == 1
        levels = [level.asarray() for level in tiff.series[0].levels]
        resolutions = [level.keyframe.get_resolution(unit=5) for level in tiff.series[0].levels]
    assert [level.shape[1::-1] for level in levels] == sizes(spec)
    for k, level in enumerate(levels):
        assert resolutions[k] == pytest.approx((1 / spec.level_mpp(k),) * 2, rel=1e-5)
        mean = exact_mean(rgb, 2**k)
        worst = np.abs(level[: mean.shape[0], : mean.shape[1]] - mean)
        if spec.compression == "deflate":
            assert worst.max() <= (0.51 if k <= 3 else 1.01)
        assert worst.mean() < (3.0 if spec.compression == "jpeg" else 0.6)
        assert np.abs((level[: mean.shape[0], : mean.shape[1]] - mean).mean()) < 0.3  # no drift of the grey level


def test_tiffslide_sees_the_pyramid(slide) -> None:  # type: ignore[no-untyped-def]
    import tiffslide

    path, spec, rgb = slide
    y, x, pixels = region(rgb)
    with tiffslide.TiffSlide(path) as client:
        assert list(client.level_dimensions) == sizes(spec)
        assert client.properties["tiffslide.mpp-x"] == pytest.approx(spec.mpp, rel=1e-4)
        assert client.properties["tiffslide.mpp-y"] == pytest.approx(spec.mpp, rel=1e-4)
        assert difference(np.asarray(client.read_region((x, y), 0, (256, 256)))[..., :3], pixels) < 3


def test_openslide_sees_the_pyramid(slide) -> None:  # type: ignore[no-untyped-def]
    openslide = pytest.importorskip("openslide")
    path, spec, rgb = slide
    y, x, pixels = region(rgb)
    with openslide.OpenSlide(path) as client:
        assert list(client.level_dimensions) == sizes(spec)
        assert float(client.properties["openslide.mpp-x"]) == pytest.approx(spec.mpp, rel=1e-4)
        assert difference(np.asarray(client.read_region((x, y), 0, (256, 256)))[..., :3], pixels) < 3
        top = spec.levels - 1
        client.read_region((0, 0), top, (64, 64))


def test_libvips_sees_the_pyramid(slide) -> None:  # type: ignore[no-untyped-def]
    import pyvips

    path, spec, rgb = slide
    y, x, pixels = region(rgb)
    image = pyvips.Image.new_from_file(str(path))
    levels = [pyvips.Image.new_from_file(str(path), subifd=k) for k in range(spec.levels - 1)]
    assert [(v.width, v.height) for v in (image, *levels)] == sizes(spec)
    for k, v in enumerate((image, *levels)):
        assert 1000 / v.xres == pytest.approx(spec.level_mpp(k), rel=1e-4)
    assert difference(image.crop(x, y, 256, 256).numpy(), pixels) < 3


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_the_file_depends_on_the_pixels_only(tmp_path: Path, compression: str) -> None:
    spec = PyramidSpec(2100, 2100, 0.5, 20, compression)  # type: ignore[arg-type]
    rgb = tissue(2100, 2100)
    one = make_slide(tmp_path / "one", spec, rgb)
    two = make_slide(tmp_path / "two", spec, rgb, backwards=True)
    assert sha256(one) == sha256(two)
    rgb[2099, 2099] ^= 64
    three = make_slide(tmp_path / "three", spec, rgb)
    assert level0_sha256(one) == level0_sha256(two) != level0_sha256(three)


def test_level0_sha256_is_that_of_the_tiles(tmp_path: Path) -> None:
    spec = PyramidSpec(700, 600, 0.5, 20)
    rgb = tissue(600, 700)
    tiles = (encode_tile(spec, rgb[y : y + 512, x : x + 512]) for y in (0, 512) for x in (0, 512))
    expected = hashlib.sha256(b"".join(tiles)).hexdigest()
    assert level0_sha256(make_slide(tmp_path, spec, rgb)) == expected


def test_a_failure_in_mid_write_leaves_the_old_slide(tmp_path: Path) -> None:
    spec = PyramidSpec(2100, 2100, 0.5, 20)
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool")
    fill(spool, spec, tissue(2100, 2100))
    last = tmp_path / "spool" / "00001_00001.blk"
    blob = bytearray(last.read_bytes())
    blob[len(blob) // 2] ^= 1
    last.write_bytes(blob)
    target = tmp_path / "x.ome.tiff"
    target.write_bytes(b"old")
    with pytest.raises(DamagedChunkError, match=r"00001_00001\.blk: CRC-32"):
        write_slide(target, spec, spool, b"<OME/>")
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spool", "x.ome.tiff"]


@pytest.mark.parametrize("side", [600, 2100])
def test_blocks_read_are_told_one_by_one(tmp_path: Path, side: int) -> None:
    spec = PyramidSpec(side, side, 0.5, 20)
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool")
    fill(spool, spec, tissue(side, side))
    told: list[int] = []
    write_slide(tmp_path / "x.ome.tiff", spec, spool, b"<OME/>", lambda: told.append(1))
    assert len(told) == len(spec.grid)


def test_missing_blocks_are_counted(tmp_path: Path) -> None:
    spec = PyramidSpec(2100, 2100, 0.5, 20)
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool")
    fill(spool, spec, tissue(2100, 2100))
    spool.discard((0, 1))
    with pytest.raises(DamagedChunkError, match=r"1 of 4 blocks are missing, first \(0, 1\)"):
        write_slide(tmp_path / "x.ome.tiff", spec, spool, b"")


def test_blocks_of_another_slide_are_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool")
    fill(spool, PyramidSpec(600, 600, 0.5, 20, quality=80), tissue(600, 600))
    with pytest.raises(DamagedChunkError, match="its quality is 80, expected 90"):
        write_slide(tmp_path / "x.ome.tiff", PyramidSpec(600, 600, 0.5, 20), spool, b"")


def test_only_a_bigtiff_with_subifds_is_linked(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((32, 32), np.uint8))
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((32, 32), np.uint8), bigtiff=True, byteorder="<")
    with pytest.raises(OutputError, match="BigTIFF"):
        link_subifds(tmp_path / "small.tif")
    with pytest.raises(OutputError, match="SubIFDs"):
        link_subifds(tmp_path / "flat.tif")


def test_every_block_is_read_once_and_scratch_files_are_as_projected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = PyramidSpec(4500, 4100, 0.5, 20.0, "deflate")
    reads, scratch, sizes = Counter[tuple[int, int]](), [], []
    read, make, link = Spool.read, tempfile.TemporaryFile, link_subifds

    def count(spool: Spool, ij: tuple[int, int]) -> EncodedBlock:
        reads[ij] += 1
        return read(spool, ij)

    def note(**settings: Any) -> Any:
        scratch.append(make(**settings))
        return scratch[-1]

    def look(path: Path) -> None:
        sizes.extend(os.fstat(file.fileno()).st_size for file in scratch)
        link(path)

    monkeypatch.setattr(Spool, "read", count)
    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    monkeypatch.setattr(writer, "link_subifds", look)
    make_slide(tmp_path, spec, tissue(4100, 4500))
    assert set(reads) == set(spec.grid)
    assert set(reads.values()) == {1}
    assert 0 < sum(sizes) <= scratch_bytes(spec, 3.0)
