"""Which files are opened at all, told by their first bytes, and how large a picture may be: decided before a pixel is decoded.

A library that opens whatever it can is a danger: 120 bytes of SVG ask for a canvas of gigabytes, ImageMagick's formats run
programs. So a file is opened by the one loader of its kind, or refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsigen.base.errors import ImageError, WsigenError, refusing

WHOLE_BYTES = 2**30
"""Most bytes of a picture that has no tiles (1 GiB: 18,900 px squared in colour, 32,700 as labels of 8 bits: a mask of a whole
slide at 1 um/px).

Decoded rows of more than 100 MB lie in a temporary file of libvips, not in memory. What is larger belongs into a tiled pyramid,
of which only what is asked for is read.
"""

AT_ONCE_BYTES = 192 * 2**20
"""Most bytes of what lies in memory when it is decoded (192 MiB: 8,192 px squared in colour, 14,100 as labels of 8 bits).

A tile or a strip; and a picture whose decoder cannot give rows one after the other: WebP, interlaced PNG, progressive JPEG,
palettes.
"""

LOADERS = {"PNG": "pngload", "JPEG": "jpegload", "WebP": "webpload", "TIFF": "tiffload"}
"""The kinds of plain pictures, and libvips' loader of each."""

READ = "slides (SVS, NDPI, MRXS, SCN, VMS, BIF, DICOM, OME-TIFF and other TIFF) and pictures (PNG, JPEG, WebP, TIFF) are read"

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    **dict.fromkeys(_TIFF, "TIFF"),
    b"ZISRAWFILE": "Zeiss CZI",
    b"SQLite format 3": "SQLite (Sakura)",
    b"%PDF": "PDF",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xb6\xa6\xf2\x08": "libvips .v",
    b"\x08\xf2\xa6\xb6": "libvips .v",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "ZIP",
    b"<": "SVG or other XML",
}


def kind_of(path: str | Path) -> str:
    """Tell what a file is by its first bytes: a key of `LOADERS`, another format's name, or an empty string."""
    with Path(path).open("rb") as file:
        head = file.read(132)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return "HEIF"
    if head[128:132] == b"DICM":
        return "DICOM"
    return next((kind for magic, kind in _MAGIC.items() if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(magic)), "")


def open_picture(path: str | Path, fault: type[WsigenError] = ImageError, access: str = "random") -> Any:
    """Open a plain picture through libvips, as it is stored; only its header is read.

    Parameters
    ----------
    fault : type of WsigenError
        What is raised.
    access : str
        libvips' word: ``random``, or ``sequential`` for one pass from top to bottom.

    Raises
    ------
    WsigenError
        If its format is not one of `LOADERS`, or it is too large to be decoded.
    """
    path = str(path)
    kind = kind_of(path)
    if kind not in LOADERS:
        raise fault(f"{path}: {kind or 'no picture that is known here'}; {READ}: save it as PNG or tiled TIFF")
    with refusing(fault, f"{path}: not an image, truncated or damaged", "give an image that opens elsewhere, or copy it again"):
        image = _loaded(path, kind, access)
        pixel_bytes = image.bands * {"uchar": 1, "char": 1, "ushort": 2, "short": 2}.get(image.format, 4)
        tile, at_once = _tile(path) if kind == "TIFF" else None, kind == "WebP" or _is_interlaced(image)
        check_size(path, tile or (image.height, image.width), pixel_bytes, tile is not None or at_once, fault)
    return image


def _loaded(path: str, kind: str, access: str) -> Any:
    import pyvips

    if kind in ("JPEG", "WebP"):  # libvips maps these: a process that reads what was cut off meanwhile would be killed
        if (size := Path(path).stat().st_size) > AT_ONCE_BYTES:
            raise ValueError(f"{size >> 20} MiB of {kind}, at most {AT_ONCE_BYTES >> 20} MiB are read")
        return getattr(pyvips.Image, f"{LOADERS[kind]}_buffer")(Path(path).read_bytes(), access=access, fail_on="error")
    # libvips remembers what it opened by name: a file that was written anew since then must be opened anew
    return getattr(pyvips.Image, LOADERS[kind])(path, access=access, fail_on="error", revalidate=True)


def check_size(
    path: str, size: tuple[int, int], pixel_bytes: int, at_once: bool, fault: type[WsigenError] = ImageError
) -> None:
    """Refuse what would take too much memory to decode.

    Parameters
    ----------
    size : tuple of int
        ``(height, width)`` of a picture, tile or strip (px).
    at_once : bool
        Whether all of it lies in memory; otherwise its rows are decoded one after the other.
    """
    (height, width), most = size, AT_ONCE_BYTES if at_once else WHOLE_BYTES
    if height * width * pixel_bytes > most:
        how = "in memory at once" if at_once else "as a whole"
        raise fault(
            f"{path}: {width} x {height} px, {height * width * pixel_bytes / 2**30:.1f} GiB, are decoded {how}; at most "
            f"{most / 2**30:.2g} GiB are; save it as a tiled pyramid: vips tiffsave IN OUT.tif --tile --pyramid --compression "
            "deflate"
        )


def _is_interlaced(image: Any) -> bool:
    """Whether the first row of a PNG or JPEG is known only when all of the file is decoded."""
    return "interlaced" in image.get_fields() and bool(image.get("interlaced"))


def _tile(path: str) -> tuple[int, int] | None:
    """Size of the tiles of a TIFF, None if it has none."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        return (page.tilelength, page.tilewidth) if page.is_tiled else None
