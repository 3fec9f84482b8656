"""Pixels to the bytes of one TIFF tile, and area means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.slide.pyramid import BLOCK_LEVELS, PyramidSpec

RGB = NDArray[np.uint8]

STRIP = 128
"""Rows that are shrunk at a time, so that the sums of a wide image stay in the cache (measured: 32 to 256)."""


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

    h, w = rgb.shape[:2]
    full = np.pad(rgb, ((0, spec.tile - h), (0, spec.tile - w), (0, 0)), mode="edge") if min(h, w) < spec.tile else rgb
    full = np.ascontiguousarray(full)
    if spec.compression == "jpeg":
        return bytes(
            imagecodecs.jpeg8_encode(full, level=spec.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
        )
    differences = imagecodecs.delta_encode(full, axis=-2)
    return bytes(imagecodecs.deflate_encode(differences.tobytes(), level=6))


def area_mean(rgb: RGB, factor: int) -> RGB:
    """Shrink uint8 ``[h, w, 3]`` by an integer factor, each pixel the mean of those it covers, rounded once, halves upwards.

    The result is ``[ceil(h / factor), ceil(w / factor), 3]``; a box that reaches over the edge is averaged
    over the pixels that exist.
    """
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).reduce(factor))


def area_means(rgb: RGB) -> list[RGB]:
    """Return the area means at 1/2, 1/4 and 1/8 of uint8 ``[h, w, 3]``, the same pixels as by `area_mean`.

    Where they fit evenly the sums are shared, which takes half the time: shrinking by each factor for itself was a third of
    packing a slide.
    """
    factor = 2**BLOCK_LEVELS
    height, width = rgb.shape[:2]
    if height % factor or width % factor:
        return [area_mean(rgb, 2**k) for k in range(1, BLOCK_LEVELS + 1)]
    means = [np.empty((height >> k, width >> k, 3), np.uint8) for k in range(1, BLOCK_LEVELS + 1)]
    for y in range(0, height, STRIP):
        sums: NDArray[Any] = rgb[y : y + STRIP].reshape(-1, 3 * width)
        for k, mean in enumerate(means, start=1):
            sums = np.add(sums[0::2], sums[1::2], dtype=np.uint16)  # 64 bytes add up to less than 2^16
            pairs = sums.copy()
            pairs[:, :-3] += sums[:, 3:]  # a sum at every pixel though each second is wanted: whole rows add far faster
            sums = np.ascontiguousarray(pairs.view("V6")[:, ::2]).view(np.uint16)
            rounded = (sums + np.uint16(1 << (2 * k - 1))) >> np.uint16(2 * k)
            mean[y >> k : (y >> k) + len(sums)] = rounded.reshape(len(sums), -1, 3)
    return means


def is_plain(rgb: RGB) -> bool:
    """Whether all pixels of uint8 ``[h, w, 3]`` have one colour (the first row alone gives tissue away)."""
    return bool((rgb[0] == rgb[0, 0]).all() and (rgb == rgb[0]).all())
