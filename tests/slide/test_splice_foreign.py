"""Pixels replaced in slides of other programs: byte orders, compressions, ratios of levels, tiles that are missing, shared."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import pyvips
import rasterio
import tifffile
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scanner_files import jpeg, tiles, write_mrxs, write_ndpi, write_ome, write_svs
from slide_making import tissue
from test_splice import ellipse

import wsigen.slide.splice
import wsigen.slide.tiff_patch
from wsigen.base.errors import ConfigError, ImageError, OutputError
from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image
from wsigen.slide.splice import OtherFormatError, Patch, replace_pixels, restore
from wsigen.slide.tiles import area_mean

SIDE = 512
PICTURE = tissue(SIDE, SIDE)
BOX = Box(150, 130, SIDE, SIDE)  # to the corner of the slide
MASK = ellipse(BOX)
MASK[-9:, -20:] = True
PATCH = Patch(BOX, tissue(*BOX.shape, seed=4), MASK)


def pyramid(*factors: int) -> list[NDArray[np.uint8]]:
    return [area_mean(PICTURE, factor) for factor in (1, *factors)]


def plain(path: Path, levels: list[NDArray[np.uint8]], **options: Any) -> None:
    """A pyramid of pages one after the other, without a description."""
    file = {k: options.pop(k) for k in ("bigtiff", "byteorder") if k in options}
    with tifffile.TiffWriter(path, **file) as tif:
        for k, level in enumerate(levels):
            tif.write(level, tile=(128, 128), photometric="rgb", subfiletype=int(k > 0), metadata=None, **options)


def by_vips(path: Path, **options: Any) -> None:
    """A pyramid of libvips: JPEG whose tables lie in a tag."""
    image = pyvips.Image.new_from_array(PICTURE)
    options = {"Q": 85, **options}
    image.tiffsave(str(path), tile=True, pyramid=True, tile_width=128, tile_height=128, compression="jpeg", **options)


LOSSLESS = {
    "OME-TIFF": lambda path: write_ome(path, pyramid(2, 4)),
    "ratio 4": lambda path: write_ome(path, pyramid(4, 16)),
    "no ratio": lambda path: write_ome(path, [PICTURE, tissue(189, 189), tissue(71, 70)]),
    "LZW": lambda path: write_ome(path, pyramid(2), compression="lzw", predictor=True),
    "not compressed": lambda path: write_ome(path, pyramid(2), compression=None),
    "classic": lambda path: plain(path, pyramid(2, 4), compression="deflate", predictor=True),
    "big-endian": lambda path: plain(path, pyramid(2, 4), compression="deflate", byteorder=">"),
    "big-endian BigTIFF": lambda path: plain(path, pyramid(2), bigtiff=True, byteorder=">"),
}
JPEG = {
    "JPEG": lambda path: plain(path, pyramid(2, 4), compression="jpeg"),
    "JPEG of RGB": lambda path: plain(path, pyramid(2), compression="jpeg", compressionargs={"outcolorspace": "rgb"}),
    "SVS": lambda path: write_svs(path, pyramid(4), jpeg, "jpeg"),
    "tables in a tag": by_vips,
    "tables in a tag, SubIFDs": lambda path: by_vips(path, subifd=True, bigtiff=True),
}


def changed(path: Path, output: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    before, after = open_image(path), open_image(output)
    assert before.levels == after.levels
    return [tuple(image.read(k, Box(0, 0, *size)) for image in (before, after)) for k, size in enumerate(before.levels)]  # type: ignore[misc]


def masked(size: tuple[int, int], reach: float = 0) -> NDArray[np.bool_]:
    """Pixels of a level of which a part is masked, or lies within some px of what is."""
    whole = np.zeros((SIDE, SIDE), bool)
    whole[BOX.slices] = MASK
    total = np.pad(whole.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y0, x0 = (np.clip(np.floor(np.arange(n) * SIDE / n - reach + 1e-9), 0, SIDE).astype(int) for n in size)
    y1, x1 = (np.clip(np.ceil(np.arange(1, n + 1) * SIDE / n + reach - 1e-9), 0, SIDE).astype(int) for n in size)
    return total[np.ix_(y1, x1)] - total[np.ix_(y0, x1)] - total[np.ix_(y1, x0)] + total[np.ix_(y0, x0)] > 0


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_slides_change_under_the_mask_alone_and_come_back(tmp_path: Path, kind: str) -> None:
    path, output, undo = tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "b.undo"
    LOSSLESS[kind](path)
    replace_pixels(path, output, [PATCH], undo=undo)
    for level, (old, new) in enumerate(changed(path, output)):
        here = masked(old.shape[:2])
        assert (old[~here] == new[~here]).all()
        assert (old[here] != new[here]).any(-1).mean() > 0.9
        if level == 0:
            assert (new[BOX.slices][MASK] == PATCH.pixels[MASK]).all()
    restore(output, undo)
    assert output.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", JPEG)
def test_jpeg_slides_change_in_blocks_of_the_mask_alone_and_come_back(tmp_path: Path, kind: str) -> None:
    path, output, undo = tmp_path / ("a.svs" if kind == "SVS" else "a.tif"), tmp_path / "b.tif", tmp_path / "b.undo"
    JPEG[kind](path)
    done = replace_pixels(path, output, [PATCH], undo=undo)
    for level, (old, new) in enumerate(changed(path, output)):
        reach = 17 * SIDE / old.shape[0]  # a block of 16 px, and one for smoothed colours
        far = ~masked(old.shape[:2], reach)
        assert (old[far] == new[far]).all()
        if level == 0:
            assert np.abs(new[BOX.slices].astype(int) - PATCH.pixels)[MASK].mean() < 3
    assert np.asarray(openslide.OpenSlide(str(output)).read_region((0, 0), 0, (SIDE, SIDE)))[..., :3].shape == PICTURE.shape
    assert any("beside" in note for note in done.notes)
    assert any("Thumbnail" in note for note in done.notes) == (kind == "SVS")
    restore(output, undo)
    assert output.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("text", ["x", "a longer description"])
def test_a_description_is_changed_or_added(tmp_path: Path, order: str, big: bool, text: str) -> None:
    path, output, undo = tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "b.undo"
    plain(path, pyramid(2), byteorder=order, bigtiff=big, software=False)
    for source, target in ((path, output), (output, tmp_path / "c.tif")):
        replace_pixels(source, target, [PATCH], description=text, undo=undo)
        with tifffile.TiffFile(target) as tif:
            assert tif.pages.first.description == text
            assert tif.pages.first.imagewidth == SIDE
            assert len(tif.pages) == 2
        restore(target, undo)
        assert target.read_bytes() == source.read_bytes()
        replace_pixels(source, target, [PATCH], description=text)


def test_tiles_that_were_not_scanned_are_filled(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, pyramid(4), jpeg, "jpeg", without=lambda y, x: y < 256)
    done = replace_pixels(path, tmp_path / "b.tif", [PATCH])
    pixels = open_image(done.path).read(0, BOX)
    assert np.abs(pixels.astype(int) - PATCH.pixels)[MASK].mean() < 3


def test_bytes_that_another_tile_shares_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    plain(path, [np.full_like(PICTURE, 200)], compression=None)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags["TileOffsets"]
        place, first = tag.valueoffset, tag.value[0]
    data = bytearray(path.read_bytes())
    for i in range(16):
        struct.pack_into("<I", data, place + 4 * i, first)
    path.write_bytes(data)
    done = replace_pixels(path, tmp_path / "b.tif", [PATCH])
    assert any("stay in the file" in note for note in done.notes)
    old, new = changed(path, done.path)[0]
    assert (old[~masked((SIDE, SIDE))] == new[~masked((SIDE, SIDE))]).all()


def test_what_lies_beside_shared_bytes_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    plain(path, [PICTURE], compression=None)
    with tifffile.TiffFile(path) as tif:
        tag, size = tif.pages.first.tags["TileOffsets"], tif.pages.first.databytecounts[0]
        place, offsets = tag.valueoffset, tag.value
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, place, offsets[5])  # a tile that is not touched lies where one lies that is
    path.write_bytes(data)
    done = replace_pixels(path, tmp_path / "b.tif", [PATCH])
    new = done.path.read_bytes()
    assert [any(new[offsets[i] : offsets[i] + size]) for i in (5, 6, 9, 10)] == [True, False, False, False]
    assert any(note.startswith(f"{size} bytes") for note in done.notes)


@pytest.mark.parametrize("compression", ["DEFLATE", "JPEG"])
def test_a_cloud_optimised_tiff_says_that_it_was_changed(tmp_path: Path, compression: str) -> None:
    path, undo = tmp_path / "a.tif", tmp_path / "b.undo"
    profile = {"driver": "COG", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, compress=compression, blocksize=128, overviews="auto") as file:
            file.write(PICTURE.transpose(2, 0, 1))
        done = replace_pixels(path, tmp_path / "b.tif", [PATCH], undo=undo)
        layouts = [rasterio.open(name).tags(ns="IMAGE_STRUCTURE").get("LAYOUT") for name in (path, done.path)]
    assert layouts == ["COG", None]  # GDAL looks for a tile's length in front of it otherwise
    restore(done.path, undo)
    assert done.path.read_bytes() == path.read_bytes()


def test_sizes_move_where_larger_ones_have_room(tmp_path: Path) -> None:
    path, undo = tmp_path / "a.tif", tmp_path / "b.undo"
    tifffile.imwrite(path, np.full_like(PICTURE, 9), tile=(256, 256), photometric="rgb", compression="deflate", metadata=None)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags["TileByteCounts"]
        entry, place, sizes = tag.offset, tag.valueoffset, tag.value
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, entry + 2, 3)  # SHORT
    struct.pack_into(f"<{len(sizes)}H", data, place, *sizes)
    path.write_bytes(data)
    noise = Patch(BOX, np.random.default_rng(0).integers(0, 256, PATCH.pixels.shape, np.uint8), MASK)
    done = replace_pixels(path, tmp_path / "b.tif", [noise], undo=undo)
    assert (open_image(done.path).read(0, BOX)[MASK] == noise.pixels[MASK]).all()
    restore(done.path, undo)
    assert done.path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("at", [0, 4, 2**31, "entries"])
def test_tiles_that_lie_where_they_cannot_are_refused(tmp_path: Path, at: int | str) -> None:
    path = tmp_path / "a.tif"
    plain(path, [PICTURE], compression=None)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        place, where = page.tags["TileOffsets"].valueoffset, page.offset if at == "entries" else at
    data = bytearray(path.read_bytes())
    for i in range(16):
        struct.pack_into("<I", data, place + 4 * i, where)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"copy (it|the file) again"):
        replace_pixels(path, tmp_path / "b.tif", [PATCH], undo=tmp_path / "b.undo")
    assert list(tmp_path.iterdir()) == [path]


def test_a_classic_tiff_does_not_pass_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    plain(path, [PICTURE], compression=None)
    monkeypatch.setattr(wsigen.slide.tiff_patch, "CLASSIC_BYTES", path.stat().st_size + 100_000)
    with pytest.raises(OutputError, match="tiffcp -8"):
        replace_pixels(path, tmp_path / "b.tif", [PATCH])
    assert list(tmp_path.iterdir()) == [path]


def test_offsets_of_another_image_that_no_file_reaches_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(PICTURE, tile=(128, 128), photometric="rgb", metadata=None)
        tif.write(PICTURE[:100, :100], photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as tif:
        entry = tif.pages[1].aspage().tags["StripOffsets"].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<HQQ", data, entry + 2, 16, 1, 2**64 - 9)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tif: damaged"):
        replace_pixels(path, tmp_path / "b.tif", [PATCH])
    assert list(tmp_path.iterdir()) == [path]


def test_tiles_get_tables_of_their_own_where_the_shared_ones_have_no_code(tmp_path: Path) -> None:
    path, output, undo = tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "b.undo"
    flat = Image.fromarray(np.full((128, 128, 3), 200, np.uint8))
    options = {"format": "JPEG", "optimize": True, "subsampling": 0}
    flat.save(whole := BytesIO(), **options)  # codes for what is in it alone
    flat.save(tables := BytesIO(), streamtype=1, **options)
    flat.save(tile := BytesIO(), streamtype=2, **options)
    assert len(tile.getvalue()) < len(whole.getvalue())
    shared = tables.getvalue()
    tifffile.imwrite(
        path, iter([tile.getvalue()] * 16), shape=PICTURE.shape, dtype="uint8", tile=(128, 128), photometric="ycbcr",
        compression="jpeg", subsampling=(1, 1), metadata=None, extratags=[(347, 7, len(shared), shared, True)],
    )  # fmt: skip
    part = Box(140, 140, 300, 270)  # tiles before and behind it keep the shared tables
    patch = Patch(part, tissue(*part.shape, seed=4), np.ones(part.shape, bool))
    replace_pixels(path, output, [patch], undo=undo)
    beyond = np.ones((SIDE, SIDE), bool)
    beyond[136:304, 136:272] = False
    for read in (by_tifffile, by_libtiff, by_openslide, by_gdal):
        before, after = read(path), read(output)
        assert (before == after)[beyond].all()
        assert np.abs(after[part.slices].astype(int) - patch.pixels).mean() < 6
    again = Patch(part, 255 - patch.pixels, patch.mask)
    replace_pixels(output, tmp_path / "c.tif", [again])
    assert np.abs(by_libtiff(tmp_path / "c.tif")[part.slices].astype(int) - again.pixels).mean() < 6
    restore(output, undo)
    assert output.read_bytes() == path.read_bytes()


def by_tifffile(path: Path) -> NDArray[np.uint8]:
    return np.asarray(tifffile.imread(path))


def by_libtiff(path: Path) -> NDArray[np.uint8]:
    return np.asarray(pyvips.Image.new_from_file(str(path)).numpy())[..., :3]


def by_openslide(path: Path) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, (SIDE, SIDE)))[..., :3]


def by_gdal(path: Path) -> NDArray[np.uint8]:
    with warnings.catch_warnings(), rasterio.open(path) as file:
        warnings.simplefilter("ignore")
        return np.asarray(file.read()).transpose(1, 2, 0)


def of_rgb(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    """A JPEG whose planes are red, green and blue, with Huffman tables of its own."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", keep_rgb=True, subsampling=0, quality=90, optimize=True, **options)
    return buffer.getvalue()


def rgb_slide(path: Path, streams: list[bytes], tables: bytes = b"") -> None:
    tag = [(347, 7, len(tables), tables, True)] if tables else []
    tifffile.imwrite(
        path, iter(streams), shape=PICTURE.shape, dtype="uint8", tile=(128, 128), photometric="rgb", compression="jpeg",
        compressionargs={"outcolorspace": "rgb"}, metadata=None, extratags=tag,
    )  # fmt: skip


FLAT = np.full((128, 128, 3), (200, 150, 190), np.uint8)
RGB_JPEG = {
    "tables in each tile": lambda path: rgb_slide(path, list(tiles(PICTURE, of_rgb))),
    "shared tables without most codes": lambda path: rgb_slide(
        path, [of_rgb(FLAT, streamtype=2)] * 16, of_rgb(FLAT, streamtype=1)
    ),
    "libvips": lambda path: by_vips(path, rgbjpeg=True, Q=95),
}


@pytest.fixture(scope="module", params=RGB_JPEG)
def slide_of_rgb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    RGB_JPEG[request.param](path := tmp_path_factory.mktemp("rgb") / "a.tif")
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
    return path


@settings(deadline=None, max_examples=8, phases=(Phase.generate,))
@given(st.integers(0, 480), st.integers(0, 480), st.integers(24, 200), st.integers(24, 200))
def test_jpeg_of_rgb_changes_under_the_mask_for_every_reader(slide_of_rgb: Path, y: int, x: int, high: int, wide: int) -> None:
    box = Box(y, x, y + high, x + wide).intersect(Box(0, 0, SIDE, SIDE))
    patch = Patch(box, np.ascontiguousarray(255 - PICTURE[box.slices]), np.ones(box.shape, bool))
    output = slide_of_rgb.with_name(f"{y}-{x}-{high}-{wide}.tif")  # libvips keeps what it has read of a name
    replace_pixels(slide_of_rgb, output, [patch], undo=output.with_suffix(".undo"))
    beyond = np.ones((SIDE, SIDE), bool)
    beyond[y // 8 * 8 : -(-box.y1 // 8) * 8, x // 8 * 8 : -(-box.x1 // 8) * 8] = False
    for read in (by_tifffile, by_libtiff, by_openslide):
        before, after = read(slide_of_rgb), read(output)
        assert (before == after)[beyond].all()
        assert np.abs(after[box.slices].astype(int) - patch.pixels).mean() < 6
    restore(output, output.with_suffix(".undo"))
    assert output.read_bytes() == slide_of_rgb.read_bytes()


@pytest.mark.parametrize("limit", ["MOST_JPEG_PX", "MOST_JPEG_BYTES"])
def test_jpeg_tiles_that_would_take_much_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    JPEG["JPEG"](tmp_path / "a.tif")
    monkeypatch.setattr(wsigen.slide.splice, limit, 999)
    with pytest.raises(OtherFormatError, match=r"JPEG tile.*vips tiffsave"):
        replace_pixels(tmp_path / "a.tif", tmp_path / "b.tif", [PATCH])


def test_an_svs_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, pyramid(4), jpeg, "jpeg")
    with pytest.raises(ConfigError, match="begins with 'Aperio'"):
        replace_pixels(path, tmp_path / "b.svs", [PATCH], description="partly synthetic")


def progressive(rgb: NDArray[np.uint8]) -> bytes:
    return bytes(pyvips.Image.new_from_array(rgb).jpegsave_buffer(interlace=True, subsample_mode="off"))


OTHERS = {
    "a.mrxs": lambda path: write_mrxs(path, [PICTURE, area_mean(PICTURE, 2)]),
    "a.ndpi": lambda path: write_ndpi(path, [PICTURE]),
    "a.png": lambda path: pyvips.Image.new_from_array(PICTURE).write_to_file(str(path)),
    "strips.tif": lambda path: tifffile.imwrite(path, PICTURE, photometric="rgb"),
    "16.tif": lambda path: tifffile.imwrite(path, PICTURE.astype(np.uint16), tile=(128, 128), photometric="rgb"),
    "2000.svs": lambda path: write_svs(path, pyramid(4), lambda t: b"\xff\x4f" + jpeg(t), 33005),
    "planes.tif": lambda path: tifffile.imwrite(
        path, PICTURE.transpose(2, 0, 1), tile=(128, 128), photometric="rgb", planarconfig="separate"
    ),
    "progressive.tif": lambda path: tifffile.imwrite(
        path, tiles(PICTURE, progressive), shape=PICTURE.shape, dtype="uint8", tile=(128, 128),
        photometric="ycbcr", compression="jpeg", subsampling=(1, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    OTHERS[name](path)
    with pytest.raises(ImageError) as refused:
        replace_pixels(path, tmp_path / "b.tif", [PATCH])
    message = str(refused.value)
    assert "vips tiffsave" in message or "export" in message, message
    assert not (tmp_path / "b.tif").exists()
