"""Tiny files as scanners write them: Aperio SVS, 3DHISTECH MRXS; and TIFF tiles encoded by hand."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from wsigen.slide.dicom import WHOLE_SLIDE

APERIO = "Aperio Image Library v11.2.1 \r\n{w}x{h} [0,0 {w}x{h}] (128x128) {codec} Q=70|AppMag = 20|MPP = {mpp}"


def jpeg(rgb, quality=90):
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def jpeg_2000_ycbcr(rgb):
    """Aperio's 33003: YCbCr without a colour transform of the codec."""
    return imagecodecs.jpeg2k_encode(np.asarray(Image.fromarray(rgb).convert("YCbCr")), level=0, mct=False, codecformat="j2k")


def tiles(image, encode, side=128, without=lambda y, x: False):
    """Encode the tiles of an image row by row; nothing (not stored) where ``without(y, x)``."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield b"" if without(y, x) else encode(np.ascontiguousarray(padded[y : y + side, x : x + side]))


def write_svs(path, levels, encode, compression, codec="J2K/YUV16", mpp="0.500000", without=lambda y, x: False):
    """Write an Aperio SVS: level 0, a thumbnail, further levels; each ``[h, w, 3]``."""
    height, width = levels[0].shape[:2]
    text = APERIO.format(w=width, h=height, codec=codec, mpp=mpp)
    more = {"dtype": "uint8", "tile": (128, 128), "photometric": "rgb", "compression": compression, "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(tiles(levels[0], encode, without=without), shape=levels[0].shape, description=text, **more)
        small = np.ascontiguousarray(levels[0][::4, ::4])
        tif.write(small, rowsperstrip=16, photometric="rgb", compression="jpeg", description=text, metadata=None)
        for level in levels[1:]:
            tif.write(tiles(level, encode), shape=level.shape, description=text, **more)


def write_mrxs(path, levels, side=128, without=lambda y, x: False):
    """Write a 3DHISTECH slide: ``X.mrxs`` (a small JPEG) and the folder ``X``; levels halve, sizes are multiples of ``side``.

    After the reader of OpenSlide: an index of the tiles of each level (number, offset, length, file), a linked list of pages.
    """
    path = Path(path)
    folder = path.with_suffix("")
    folder.mkdir()
    Image.fromarray(levels[0][::4, ::4]).save(path, format="JPEG")
    down, across = (n // side for n in levels[0].shape[:2])
    data, pages = b"", []
    for number, level in enumerate(levels):
        page = []
        for i in range(level.shape[0] // side):
            for j in range(level.shape[1] // side):
                y, x = i * side, j * side
                if not without(y << number, x << number):
                    tile = jpeg(level[y : y + side, x : x + side])
                    page.append(((i << number) * across + (j << number), len(data), len(tile), 0))
                    data += tile
        pages.append(page)
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_index(pages))
    (folder / "Slidedat.ini").write_text(_slidedat(len(levels), across, down, side), encoding="utf-8-sig")


def _index(pages):
    head = b"01.02" + b"wsigen"
    table = len(head) + 8
    at = table + 4 * len(pages)
    pointers, body = [], b""
    for page in pages:
        pointers.append(at + len(body))
        first = at + len(body) + 8
        body += struct.pack("<ii", 0, first) + struct.pack("<ii", len(page), 0)
        body += b"".join(struct.pack("<iiii", *entry) for entry in page)
    return head + struct.pack("<ii", table, 0) + struct.pack(f"<{len(pages)}i", *pointers) + body


def _slidedat(levels, across, down, side):
    lines = [
        "[GENERAL]", "SLIDE_VERSION = 01.02", "SLIDE_ID = wsigen", f"IMAGENUMBER_X = {across}", f"IMAGENUMBER_Y = {down}",
        "OBJECTIVE_MAGNIFICATION = 20", "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]", "HIER_COUNT = 1", "NONHIER_COUNT = 0", "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level", f"HIER_0_COUNT = {levels}", "HIER_0_SECTION = none",
        *[f"HIER_0_VAL_{i}_SECTION = LEVEL_{i}" for i in range(levels)],
        "[DATAFILE]", "FILE_COUNT = 1", "FILE_0 = Data0000.dat",
    ]  # fmt: skip
    for i in range(levels):
        um = 0.5 * 2**i
        lines += [
            f"[LEVEL_{i}]", "OVERLAP_X = 0", "OVERLAP_Y = 0", f"MICROMETER_PER_PIXEL_X = {um}",
            f"MICROMETER_PER_PIXEL_Y = {um}", "IMAGE_FORMAT = JPEG", "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {side}", f"DIGITIZER_HEIGHT = {side}",
            f"IMAGE_CONCAT_FACTOR = {min(i, 1)}",
        ]  # fmt: skip
    return "\r\n".join([*lines, ""])


def write_ndpi(path, levels):
    """Write a Hamamatsu NDPI: a JPEG each level, with Hamamatsu's tags; 20x is 0.5 um/px."""
    with tifffile.TiffWriter(path) as tif:
        for number, level in enumerate(levels):
            lens = 20.0 / 2**number
            tags = [(271, 2, 0, "Hamamatsu", True), (65420, 4, 1, 1, True), (65421, 11, 1, lens, True)]
            tags += [(tag, 9, 1, 0, True) for tag in (65422, 65423, 65424)]
            tif.write(
                iter([jpeg(level)]), shape=level.shape, dtype="uint8", rowsperstrip=level.shape[0], photometric="ycbcr",
                subsampling=(1, 1), compression=7, metadata=None, software="NDP.scan", extratags=tags,
                resolution=(1000 * lens,) * 2, resolutionunit="CENTIMETER",
            )  # fmt: skip


def write_ome(path, levels, axes="YXS", photometric="rgb", metadata=None, **more):
    """Write an OME-TIFF pyramid at 0.5 um/px."""
    about = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    more = {"tile": (128, 128), "photometric": photometric, "compression": "deflate", **more}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(levels[0], subifds=len(levels) - 1, metadata={**about, **(metadata or {})}, **more)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **more)


def write_dicom(path, image, mpp=0.5, series="1.2.9", flavour="VOLUME", side=128, kind=WHOLE_SLIDE):
    """Write a level of a DICOM slide as JPEG tiles, or any other file of DICOM that is none."""
    height, width = image.shape[:2]
    frames = list(tiles(image, jpeg, side))
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.ImageType, data.Modality = ["ORIGINAL", "PRIMARY", flavour, "NONE"], "SM"
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, "1.2.3", "1.2.4"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "YBR_FULL_422", 0
    data.Rows, data.Columns, data.NumberOfFrames = side, side, len(frames)
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows, data.DimensionOrganizationType = width, height, "TILED_FULL"
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
