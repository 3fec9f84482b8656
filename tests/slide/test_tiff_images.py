"""Which image of a TIFF is read, and how: planes, depths, colours; or refused by name."""

import os
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from scanner_files import jpeg, jpeg_2000_ycbcr, tiles, write_ome, write_svs
from slide_making import tissue

from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.info import told
from wsigen.slide.reading import open_image, slide_info
from wsigen.slide.tiff_reader import _SEGMENTS

RGB = tissue(300, 400)
PLANES = np.ascontiguousarray(RGB.transpose(2, 0, 1))
TAGS = {"resolution": (20000, 20000), "resolutionunit": 3}


def read(path):
    image = open_image(path)
    return image.read(0, Box(0, 0, image.height, image.width))


def refused(path, *parts):
    with pytest.raises(ImageError) as caught:
        open_image(path)
    message = str(caught.value)
    assert all(part in message for part in (path.name, *parts)), message


def note_of(path, *parts):
    notes = open_image(path).notes
    assert any(all(part in note for part in parts) for note in notes), notes


def test_the_largest_image_is_the_slide_not_the_first(tmp_path):
    path = tmp_path / "leica.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        options = {"photometric": "rgb", "tile": (128, 128)}
        tif.write(RGB[:80, :100], metadata={"axes": "YXS", "Name": "macro", "PhysicalSizeX": 16.0}, **options)
        about = {"axes": "YXS", "Name": "slide", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        tif.write(RGB, subifds=1, metadata=about, **options)
        tif.write(RGB[::2, ::2], subfiletype=1, **options)
    np.testing.assert_array_equal(read(path), RGB)
    assert open_image(path).levels == [(300, 400), (150, 200)]
    assert open_image(path).mpp == 0.25
    note_of(path, "'slide' of 400 x 300 px is read", "'macro' of 100 x 80 px")
    assert slide_info(path).others == ("image 0 'macro' of 100 x 80 px",)


def test_of_one_size_the_slide_is_the_pyramid_and_the_one_in_colour(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        options = {"photometric": "rgb", "tile": (128, 128)}
        tif.write(RGB[..., 0] // 100, photometric="minisblack", metadata={"axes": "YX", "Name": "mask"})
        tif.write(RGB, subifds=1, metadata={"axes": "YXS", "Name": "slide"}, **options)
        tif.write(RGB[::2, ::2], subfiletype=1, **options)
    with tifffile.TiffWriter(tmp_path / "b.tif") as tif:
        tif.write(RGB[..., 0] // 100, photometric="minisblack", metadata=None)
        tif.write(RGB, photometric="rgb", metadata=None)
    for name in ("a.ome.tif", "b.tif"):
        np.testing.assert_array_equal(read(tmp_path / name), RGB)
        note_of(tmp_path / name, "is read", "not image 0")


def test_12_bits_beside_an_alpha_of_16(tmp_path):
    alpha = np.full(RGB.shape[:2], 65535)
    alpha[:50] = 0
    samples = np.dstack([RGB.astype(np.uint32) * 4095 // 255, alpha]).astype(np.uint16)
    shown = np.where(alpha[..., None] == 0, 255, RGB)
    planar = {"data": np.ascontiguousarray(samples.transpose(2, 0, 1)), "planarconfig": "separate"}
    for name, how in (("a.tif", {"data": samples}), ("b.tif", planar)):
        tifffile.imwrite(tmp_path / name, photometric="rgb", extrasamples=["unassalpha"], tile=(128, 128), **how)
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(samples))
    for name in ("a.tif", "b.tif", "c.png"):
        assert np.abs(read(tmp_path / name).astype(int) - shown).max() <= 1
        note_of(tmp_path / name, "taken as 12 bits")


def test_focal_planes_and_times(tmp_path):
    stack = np.stack([RGB, RGB[::-1], RGB[:, ::-1]])
    write_ome(tmp_path / "z.ome.tif", [stack], "ZYXS")
    write_ome(tmp_path / "t.ome.tif", [stack], "TYXS")
    np.testing.assert_array_equal(read(tmp_path / "z.ome.tif"), RGB[::-1])
    note_of(tmp_path / "z.ome.tif", "3 focal planes", "middle one (2)")
    np.testing.assert_array_equal(read(tmp_path / "t.ome.tif"), RGB)
    note_of(tmp_path / "t.ome.tif", "3 times", "first")


@pytest.mark.parametrize(
    ("channels", "order"),
    [
        ({}, (0, 1, 2)),
        ({"Name": ["R", "G", "B"]}, (0, 1, 2)),
        ({"Name": ["blue", "green", "red"]}, (2, 1, 0)),
        ({"Color": [-16776961, 16711935, 65535]}, (0, 1, 2)),
        ({"Name": ["DAPI", "FITC", "TRITC"]}, None),
        ({"Name": ["DAPI", "FITC", "TRITC"], "Color": [65535, 16711935, -16776961]}, None),
        ({"Fluor": ["a", "b", "c"]}, None),
    ],
)
def test_three_grey_channels(tmp_path, channels, order):
    path = tmp_path / "c.ome.tif"
    write_ome(path, [PLANES], "CYX", "minisblack", {"Channel": channels} if channels else None)
    if order is None:
        refused(path, "3 channels", channels.get("Name", ["channel 1"])[0], "no brightfield RGB")
    else:
        np.testing.assert_array_equal(read(path), RGB[..., list(order)])
        assert bool(open_image(path).notes) == (not channels)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_fluorescence_is_refused_by_name(tmp_path, count):
    path = tmp_path / "f.ome.tif"
    write_ome(path, [np.resize(PLANES, (count, 300, 400))], "CYX", "minisblack")
    refused(path, f"{count} channels", "no brightfield RGB image")


@pytest.mark.parametrize("dye", [{"EmissionWavelength": [600, 520, 460]}, {"ContrastMethod": ["Fluorescence"] * 3}])
def test_colours_of_a_display_are_no_stain(tmp_path, dye):
    """Dyes without names that are shown in red, green and blue."""
    shown = {"Channel": {"Color": [-16776961, 16711935, 65535], **dye}}
    write_ome(tmp_path / "f.ome.tif", [PLANES], "CYX", "minisblack", shown)
    refused(tmp_path / "f.ome.tif", "3 channels", "no brightfield RGB image")


def test_pages_nobody_names_are_refused(tmp_path):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, PLANES, photometric="minisblack", tile=(128, 128))
    refused(path, "3 pages of the same size", "nothing says which")


@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {"rowsperstrip": 16}, {"rowsperstrip": 300}])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
def test_strips_tiles_and_planes(tmp_path, layout, separate, compression):
    path = tmp_path / "a.tif"
    data = PLANES if separate else RGB
    planar = "separate" if separate else "contig"
    tifffile.imwrite(path, data, photometric="rgb", planarconfig=planar, compression=compression, metadata=None, **layout)
    np.testing.assert_array_equal(read(path), RGB)
    np.testing.assert_array_equal(open_image(path).read(0, Box(15, 127, 129, 131)), RGB[15:129, 127:131])
    assert open_image(path).by_region == ("tile" in layout)


@pytest.mark.parametrize("separate", [False, True])
def test_missing_tiles_are_white(tmp_path, separate):
    path = tmp_path / "a.tif"
    images = PLANES[..., None] if separate else RGB[None]
    cells = [tile for image in images for tile in tiles(image, lambda t: t.tobytes(), without=lambda y, x: y == 128 and x == 0)]
    planar = "separate" if separate else "contig"
    with tifffile.TiffWriter(path) as tif:
        shape = PLANES.shape if separate else RGB.shape
        more = {"compression": 1, "metadata": None, "planarconfig": planar, "photometric": "rgb"}
        tif.write(iter(cells), shape=shape, dtype="uint8", tile=(128, 128), **more)
    truth = RGB.copy()
    truth[128:256, :128] = 255
    np.testing.assert_array_equal(read(path), truth)


@pytest.mark.parametrize(
    ("factor", "about", "told_as"),
    [
        (257, {}, "16 bits a sample, values to"),
        (16, {}, "taken as 12 bits"),
        (16, {"SignificantBits": 12}, "12 bits a sample, as declared"),
        (1, {}, "taken as 8 bits"),
    ],
)
@pytest.mark.parametrize("layout", ["tiled", "planes"])
def test_more_than_8_bits_are_scaled_to_what_is_used(tmp_path, factor, about, told_as, layout):
    path, full = tmp_path / "a.ome.tif", RGB.copy()
    full[0, 0] = 255
    deep = full.astype(np.uint16) * factor
    if layout == "tiled":
        write_ome(path, [deep], metadata=about)
    else:
        write_ome(path, [np.ascontiguousarray(deep.transpose(2, 0, 1))], "CYX", "minisblack", about)
    assert np.abs(read(path).astype(int) - full).max() <= 1
    note_of(path, told_as)


def test_deep_png_is_scaled_too(tmp_path):
    grey = RGB[..., 1].astype(np.uint16) * 16
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png")[..., 0].astype(int) - RGB[..., 1]).max() <= 1
    note_of(tmp_path / "a.png", "taken as 12 bits")
    note_of(tmp_path / "a.png", "grey")


@pytest.mark.parametrize("dtype", ["uint32", "float32", "int16"])
def test_other_samples_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(dtype), photometric="rgb", tile=(128, 128))
    refused(tmp_path / "a.tif", dtype, "save it as 8-bit RGB")


def test_transparency_is_white(tmp_path):
    alpha = np.full((300, 400, 1), 255, np.uint8)
    alpha[:, :100] = 0
    for kind in ("unassalpha", "assocalpha"):
        path = tmp_path / f"{kind}.tif"
        colours = RGB if kind == "unassalpha" else np.where(alpha, RGB, 0)
        tifffile.imwrite(path, np.concatenate([colours, alpha], -1), photometric="rgb", extrasamples=[kind], tile=(128, 128))
        np.testing.assert_array_equal(read(path), np.where(alpha, RGB, 255))


def test_photometric_interpretations(tmp_path):
    grey = RGB[..., 1]
    tifffile.imwrite(tmp_path / "white.tif", 255 - grey, photometric="miniswhite", tile=(128, 128))
    np.testing.assert_array_equal(read(tmp_path / "white.tif"), grey[..., None].repeat(3, -1))
    note_of(tmp_path / "white.tif", "grey")
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", grey, photometric="palette", colormap=colours * 257, tile=(128, 128))
    np.testing.assert_array_equal(read(tmp_path / "palette.tif"), colours.T[grey])
    tifffile.imwrite(tmp_path / "cmyk.tif", np.dstack([RGB, grey]), photometric="separated", tile=(128, 128))
    refused(tmp_path / "cmyk.tif", "SEPARATED", "save it as RGB")


@pytest.mark.parametrize(
    ("encode", "compression", "photometric"),
    [(jpeg, 7, "ycbcr"), (jpeg_2000_ycbcr, 34712, "ycbcr"), (jpeg_2000_ycbcr, 33003, "rgb")],
)
def test_ycbcr_becomes_rgb(tmp_path, encode, compression, photometric):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        more = {"subsampling": (1, 1)} if photometric == "ycbcr" else {}
        options = {"compression": compression, "photometric": photometric, "metadata": None, **more}
        tif.write(tiles(RGB, encode), shape=RGB.shape, dtype="uint8", tile=(128, 128), **options)
    assert np.abs(read(tmp_path / "a.tif").astype(int) - RGB).mean() < 2


def test_turned_pictures_are_read_as_stored_and_that_is_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    assert read(tmp_path / "a.jpg").shape == RGB.shape
    note_of(tmp_path / "a.jpg", "orientation 6", "as stored")
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", metadata=None, extratags=[(274, 3, 1, 8, True)])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), RGB)
    note_of(tmp_path / "a.tif", "orientation 8", "as stored")


def test_by_url(tmp_path):
    write_ome(tmp_path / "a.ome.tif", [RGB, RGB[::2, ::2]])
    image = open_image(f"file://{tmp_path}/a.ome.tif")
    assert image.levels == [(300, 400), (150, 200)]
    assert image.mpp == 0.5
    np.testing.assert_array_equal(image.read(0, Box(0, 0, 300, 400)), RGB)


def test_slides_of_scanners_by_url_are_refused(tmp_path):
    """Their tiles may overlap and their colours be coded: only OpenSlide knows, and it reads files."""
    write_svs(tmp_path / "a.svs", [RGB], jpeg, 7)
    with pytest.raises(ImageError, match="local file only; copy it here"):
        open_image(f"file://{tmp_path}/a.svs")


def test_threads_share_a_reader(tmp_path):
    write_ome(tmp_path / "a.ome.tif", [RGB], compression="deflate")
    image, rows = open_image(tmp_path / "a.ome.tif"), range(0, 300, 10)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda y: image.read(0, Box(y, 0, y + 10, 400)), [*rows, *rows]))
    for y, part in zip([*rows, *rows], parts, strict=True):
        np.testing.assert_array_equal(part, RGB[y : y + 10])


def test_decoded_tiles_of_all_files_have_one_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("wsigen.slide.tiff_reader.CACHE_BYTES", 100_000)
    for number in range(5):
        write_ome(tmp_path / f"{number}.ome.tif", [RGB])
        read(tmp_path / f"{number}.ome.tif")
    assert sum(s.nbytes for s in _SEGMENTS._kept.values()) <= 100_000


def test_notes_of_many_files_are_one_line():
    lines = told([("x/a.svs", "odd"), ("b.svs", "odd"), ("b.svs", "odd"), ("c.svs", "grey")])
    assert lines == ["a.svs and 1 more: odd", "c.svs: grey"]


def test_a_sample_of_no_meaning_is_left_out(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.dstack([RGB, RGB[..., 0]]), photometric="rgb", extrasamples=[0], tile=(128, 128))
    np.testing.assert_array_equal(read(path), RGB)
    note_of(path, "nothing says what it is")


def test_cmyk_pictures_are_refused(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg", "CMYK", "save it as RGB")


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("named", ["pipe", "there.ome.tif", "nowhere.ome.tif"])
def test_files_that_ome_xml_names_are_not_opened(tmp_path, own, named):
    """A pipe would be waited for; the planes of a renamed file are its own."""
    os.mkfifo(tmp_path / "pipe")
    pixels = np.zeros((128, 128, 3), np.uint8)
    tifffile.imwrite(tmp_path / "there.ome.tif", pixels)
    uuid = f"urn:uuid:{'1' if own else '2'}1111111-1111-1111-1111-111111111111"
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:11111111-1111-1111-1111-111111111111"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        'Type="uint8" SizeX="128" SizeY="128" SizeC="3" SizeZ="1" SizeT="1"><Channel ID="c" SamplesPerPixel="3"/>'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{named}">{uuid}</UUID></TiffData></Pixels></Image></OME>'
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", description=xml, metadata=None, tile=(64, 64))
    if own:
        assert open_image(path).width == 128
        return
    with pytest.raises(ImageError, match="planes lie in other files"):
        open_image(path)


def test_ome_xml_of_another_picture_is_told(tmp_path):
    write_ome(tmp_path / "a.ome.tif", [RGB])
    file = tmp_path / "a.ome.tif"
    file.write_bytes(file.read_bytes().replace(b'SizeX="400"', b'SizeX="401"'))
    assert open_image(file).mpp is None
    note_of(file, "its OME-XML describes images of 401 x 300 px and not this one", "nor its um/px")
