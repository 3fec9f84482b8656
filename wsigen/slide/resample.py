"""Resample one axis of an image: area mean when it shrinks, Catmull-Rom cubic when it grows.

Weights and positions follow from the coordinates on the whole canvas, so that a pixel has the same value
whatever box it is computed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Taps:
    """The source pixels each output pixel is made of: ``index`` int, ``weight`` float32, ``[n, taps]``."""

    index: np.ndarray
    weight: np.ndarray

    @property
    def span(self) -> tuple[int, int]:
        """First source pixel used, and one after the last."""
        return int(self.index.min()), int(self.index.max()) + 1


def taps(start: int, stop: int, canvas: float, source: int, extent: float | None = None) -> Taps:
    """Return the taps of output pixels ``[start, stop)`` of ``canvas`` pixels made from ``source`` pixels.

    Pixels beyond the edge of the source repeat the last one.

    Parameters
    ----------
    extent : float or None
        Pixels of the source that the canvas stands for, if these are not all of them: a level may lack a part of one.
    """
    factor = (source if extent is None else extent) / canvas
    out = np.arange(start, stop, dtype=np.float64)
    if factor >= 1:
        return mean_taps(start, stop, factor, source)
    centre = (out + 0.5) * factor - 0.5
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(-1, 3)
    return _normalised(index, _catmull_rom(np.abs(index - centre[:, None])), source)


def mean_taps(start: int, stop: int, factor: float, source: int, offset: float = 0.0) -> Taps:
    """Return the taps of the area mean: output pixel k covers ``[k factor, (k + 1) factor) + offset`` of the source.

    A factor below 1 gives the source pixel that an output pixel lies in, or the share of each of two. Pixels beyond the edge
    of the source repeat the last one.
    """
    out = np.arange(start, stop, dtype=np.float64)
    left, right = offset + out * factor, offset + (out + 1) * factor
    index = np.floor(left).astype(np.int64)[:, None] + np.arange(math.ceil(factor) + 1)
    weight = np.minimum(index + 1, right[:, None]) - np.maximum(index, left[:, None])
    return _normalised(index, np.maximum(weight, 0), source)


def _normalised(index: np.ndarray, weight: np.ndarray, source: int) -> Taps:
    weight = weight / weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, source - 1), weight.astype(np.float32))


def _catmull_rom(d: np.ndarray) -> np.ndarray:
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def apply(image: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Resample uint8 ``[h, w, channels]``, which begins at the taps' first pixels, along both axes."""
    return np.clip(np.rint(weighted(image, rows, columns)), 0, 255).astype(np.uint8)


def weighted(image: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Resample ``[h, w, channels]`` of any type, which begins at the taps' first pixels, to float32."""
    work = _along_first(image, rows)
    return _along_first(work.transpose(1, 0, 2), columns).transpose(1, 0, 2)


def _along_first(image: np.ndarray, t: Taps) -> np.ndarray:
    """Add the taps one after the other in a fixed order: equal bits for any box."""
    index = t.index - t.span[0]
    out = np.zeros((len(index), *image.shape[1:]), np.float32)
    for k in range(index.shape[1]):
        out += image[index[:, k]] * t.weight[:, k, None, None]
    return out
