"""Plain pictures through libvips: PNG, JPEG and WebP. They have one level and are decoded whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, refusing
from wsigen.base.geometry import Box
from wsigen.slide.formats import kind_of, open_picture
from wsigen.slide.info import SlideInfo
from wsigen.slide.resolution import Stated, decide
from wsigen.slide.samples import bits_for

DAMAGED = "give an image that opens elsewhere, or copy the file again"


class PictureReader:
    """A plain picture."""

    by_region = False

    def __init__(self, path: str, image: Any, info: SlideInfo) -> None:
        self.path, self.image, self.info = path, image, info

    @classmethod
    def open(cls, path: str) -> PictureReader:
        """Open a picture.

        Raises
        ------
        ImageError
            If it is none, too large to be decoded, or not of colours or grey.
        """
        kind, stored = kind_of(path), open_picture(path)
        with refusing(ImageError, f"{path}: not an image, truncated or damaged", DAMAGED):
            image, notes = _as_rgb(path, stored)
        turned = stored.get("orientation") if "orientation" in stored.get_fields() else 1
        if turned != 1:
            notes.append(f"EXIF orientation {turned}: the pixels are read as stored, as QuPath and OpenSlide show them")
        resolution = decide([Stated(1000 / stored.yres, 1000 / stored.xres, kind)] if stored.xres > 0 < stored.yres else [])
        bits = 16 if stored.format == "ushort" else 8
        planes = f"{stored.bands} x {bits} bit, {stored.interpretation}"
        info = SlideInfo(
            path,
            f"libvips, {kind}",
            ((image.height, image.width),),
            resolution.mpp,
            resolution.source,
            planes,
            notes=(*resolution.notes, *notes),
        )
        return cls(path, image, info)

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return uint8 RGB ``[h, w, 3]`` of a box."""
        with refusing(ImageError, f"{self.path}: truncated or damaged", DAMAGED):
            return self.image.crop(box.x0, box.y0, box.width, box.height).numpy().reshape(*box.shape, 3)

    def missing_bytes(self) -> int:
        """Decode the picture to its end; libvips raises if there is too little."""
        open_picture(self.path, access="sequential").avg()
        return 0


def _as_rgb(path: str, image: Any) -> tuple[Any, list[str]]:
    """Return a libvips image as 8-bit sRGB, transparency on white, and what is to be told."""
    notes = []
    if image.format not in ("uchar", "ushort"):
        raise ImageError(f"{path}: samples of the type {image.format}, not of 8 or 16 bits; save it as 8-bit RGB")
    if image.interpretation not in ("b-w", "grey16", "srgb", "rgb", "rgb16"):
        raise ImageError(f"{path}: pixels of the kind {str(image.interpretation).upper()}; save it as RGB")
    if image.interpretation in ("b-w", "grey16"):
        notes.append("a grey picture, without the colours of a stain")
    if image.format == "ushort":
        alpha = int(image.hasalpha())
        bits, note = bits_for(int(image.extract_band(0, n=image.bands - alpha).max()), None)
        notes.append(note)
        depths = [bits] * (image.bands - alpha)
        depths += [bits_for(int(image[image.bands - 1].max()), bits)[0]] * alpha  # of which many programs write all 16 bits
        grey = image.bands < 3
        scaled = image * [255 / (2**depth - 1) for depth in depths]
        image = scaled.rint().cast("uchar").copy(interpretation="b-w" if grey else "srgb")
    image = image.colourspace("srgb")
    image = (image.flatten(background=255) if image.hasalpha() else image).cast("uchar")
    if image.bands != 3:
        raise ImageError(f"{path}: {image.bands} bands, not a colour image; save it as an RGB PNG or TIFF")
    return image, notes
