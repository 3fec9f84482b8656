"""Area means at 1/2, 1/4 and 1/8 of an image at once, as integer sums that share their additions.

Twice as fast as shrinking the image by each factor for itself, which was a third of the time that packing a slide takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HALVED = (2, 4, 8)
"""Factors; a sum of 8 x 8 bytes fits into 16 bits."""

STRIP = 128
"""Rows at a time, so that the sums of a wide image stay in the cache (measured: 16 to 2048)."""


def halved_means(rgb: NDArray[np.uint8], count: int = len(HALVED)) -> list[NDArray[np.uint8]]:
    """Shrink by the first ``count`` of `HALVED`, each pixel the mean of those it covers, rounded once, halves upwards.

    Parameters
    ----------
    rgb:
        uint8 ``[h, w, 3]``, both sides multiples of the largest factor.
    """
    height, width = rgb.shape[:2]
    found = [np.empty((height // f, width // f, 3), np.uint8) for f in HALVED[:count]]
    for y in range(0, height, STRIP):
        sums: NDArray[Any] = rgb[y : y + STRIP].reshape(-1, 3 * width)
        for k, out in enumerate(found, start=1):
            sums = np.add(sums[0::2], sums[1::2], dtype=np.uint16)  # of columns, 2^k rows high
            top = y >> k
            out[top : top + len(sums)] = _along_rows(sums, k)
    return found


def _along_rows(columns: NDArray[np.uint16], k: int) -> NDArray[np.uint8]:
    """From sums over ``2^k`` rows, ``[h, 3 w]``, to means over squares, uint8 ``[h, w / 2^k, 3]``.

    Sums begin at every pixel, though one in ``2^k`` is wanted: whole rows are added far faster than single pixels.
    """
    sums = columns
    for j in range(k):
        step = 3 << j
        sums = sums[:, :-step] + sums[:, step:]
    sums += np.uint16(1 << (2 * k - 1))
    sums >>= np.uint16(2 * k)
    means = np.empty(columns.shape, np.uint8)
    means[:, : sums.shape[1]] = sums
    pixels = means.view("V3")[:, :: 1 << k]
    return np.ascontiguousarray(pixels).view(np.uint8).reshape(*pixels.shape, 3)
