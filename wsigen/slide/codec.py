"""Pixels to the bytes of one TIFF tile, and area means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsigen.slide.halving import HALVED, halved_means
from wsigen.slide.pyramid import PyramidSpec

RGB = NDArray[np.uint8]


def encode_tile(spec: PyramidSpec, rgb: RGB) -> bytes:
    """Encode one tile as a viewer will find it in the file.

    Parameters
    ----------
    rgb:
        uint8 ``[h, w, 3]``, at most one tile; the missing rows and columns of an edge tile repeat the last
        ones, which costs fewer bytes than a hard border and leaves no fringe.

    Returns
    -------
    bytes
        A whole JPEG stream (YCbCr 4:2:0: Bio-Formats converts the colours of 4:4:4 twice), or a zlib stream
        of the horizontal differences (TIFF predictor 2).
    """
    import imagecodecs

    full = _pad(rgb, spec.tile)
    if spec.compression == "jpeg":
        return bytes(
            imagecodecs.jpeg8_encode(full, level=spec.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
        )
    differences = imagecodecs.delta_encode(full, axis=-2)
    return bytes(imagecodecs.deflate_encode(differences.tobytes(), level=6))


def area_mean(rgb: RGB, factor: int) -> RGB:
    """Shrink uint8 ``[h, w, 3]`` by an integer factor, each pixel the mean of those it covers, rounded once.

    The result is ``[ceil(h / factor), ceil(w / factor), 3]``; a box that reaches over the edge is averaged
    over the pixels that exist.
    """
    return area_means(rgb, (factor,))[0]


def area_means(rgb: RGB, factors: Sequence[int]) -> list[RGB]:
    """Shrink the same image by several factors (see `area_mean`), which saves looking at it each time."""
    if tuple(factors) == HALVED[: len(factors)] and not (rgb.shape[0] % factors[-1] or rgb.shape[1] % factors[-1]):
        return halved_means(rgb, len(factors))
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(rgb))
    return [np.asarray(image.reduce(factor)) for factor in factors]


def is_plain(rgb: RGB) -> bool:
    """Whether all pixels of uint8 ``[h, w, 3]`` have one colour (tissue is told by its first row already)."""
    return bool((rgb[0] == rgb[0, 0]).all() and (rgb == rgb[0]).all())


def _pad(rgb: RGB, side: int) -> RGB:
    h, w = rgb.shape[:2]
    if (h, w) == (side, side):
        return np.ascontiguousarray(rgb)
    return np.pad(rgb, ((0, side - h), (0, side - w), (0, 0)), mode="edge")
