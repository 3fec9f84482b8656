"""What new pixels in a slide are at each of its levels: area means of the finest, whatever the levels' ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.reading import READ_PX, extent
from wsigen.slide.resample import Taps, mean_taps, weighted
from wsigen.slide.tiff_reader import TiffReader

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_LARGEST_FACTOR = math.isqrt(READ_PX)
"""Of a level: a pixel of it is the mean of at most `READ_PX` px."""

_NOTHING = 1e-9
"""A pixel of a level of which less is new is as it was: rounding of its edges."""


@dataclass(frozen=True, slots=True)
class Patch:
    """New pixels for a part of a slide.

    Attributes
    ----------
    box : Box
        In px of the slide, on it.
    pixels : ndarray
        uint8 RGB ``(h, w, 3)``.
    mask : ndarray
        bool ``(h, w)``: which of them count.
    """

    box: Box
    pixels: RGB
    mask: Mask

    def __post_init__(self) -> None:
        if self.pixels.shape != (*self.box.shape, 3) or self.mask.shape != self.box.shape:
            raise ValueError(f"{self.box}: pixels {self.pixels.shape}, mask {self.mask.shape}; expected {self.box.shape}")
        if self.pixels.dtype != np.uint8 or self.mask.dtype != np.bool_:
            raise ValueError(f"pixels of type {self.pixels.dtype}, mask of type {self.mask.dtype}; expected uint8 and bool")


def patched(reader: TiffReader, level: int, box: Box, patches: Sequence[Patch]) -> tuple[RGB, Mask]:
    """Return the new pixels of a box of a level, uint8 ``(h, w, 3)``, and which of them are new, bool ``(h, w)``.

    Parameters
    ----------
    box : Box
        In px of the level, on it.
    """
    new, mask = np.zeros((*box.shape, 3), np.uint8), np.zeros(box.shape, bool)
    laid = _Laid.of(patches)
    for patch in patches:
        part = box.intersect(box_at(reader, level, patch.box))
        if not part.empty and (level == 0 or patch.mask.any()):
            here = part.relative_to(box).slices
            _fill(new[here], mask[here], reader, level, part, laid)
    return new, mask


@dataclass(frozen=True, slots=True)
class _Laid:
    """Patches that are looked up by where they lie: a tile of a coarse level holds thousands, each looked at for each other."""

    patches: Sequence[Patch]
    edges: NDArray[np.int64]

    @staticmethod
    def of(patches: Sequence[Patch]) -> _Laid:
        edges = [(p.box.y0, p.box.x0, p.box.y1, p.box.x1) for p in patches]
        return _Laid(patches, np.array(edges, np.int64).reshape(-1, 4))

    def on(self, box: Box) -> list[Patch]:
        """Those that a box of the slide touches, in their order."""
        y0, x0, y1, x1 = self.edges.T
        here = (y0 < box.y1) & (y1 > box.y0) & (x0 < box.x1) & (x1 > box.x0)
        return [self.patches[n] for n in np.flatnonzero(here).tolist()]


def box_at(reader: TiffReader, level: int, box: Box) -> Box:
    """The pixels of a level that a box of the slide is part of.

    Raises
    ------
    ImageError
        If the level is so coarse that a pixel of it cannot be computed.
    """
    sizes = reader.info.levels
    down, across = _factor(sizes, level)
    if max(down, across) > _LARGEST_FACTOR:
        raise ImageError(f"{reader.path}: level {level} is {max(down, across):.0f} times as coarse as the slide; leave it out")
    (height, width) = sizes[level]
    part = Box(math.floor(box.y0 / down), math.floor(box.x0 / across), math.ceil(box.y1 / down), math.ceil(box.x1 / across))
    # what a level lacks of a pixel at its end is not shown in it
    return part.intersect(Box(0, 0, height, width))


def _fill(new: RGB, mask: Mask, reader: TiffReader, level: int, box: Box, laid: _Laid) -> None:
    """Compute a box of a level; a larger one is cut in two."""
    if level == 0:
        _paste(new, mask, box, laid)
        return
    sizes = reader.info.levels
    down, across = _factor(sizes, level)
    rows, columns = mean_taps(box.y0, box.y1, down, sizes[0][0]), mean_taps(box.x0, box.x1, across, sizes[0][1])
    (y0, y1), (x0, x1) = rows.span, columns.span
    if (y1 - y0) * (x1 - x0) <= READ_PX or max(box.shape) == 1:
        _mean(new, mask, reader, Box(y0, x0, y1, x1), (rows, columns), laid)
    elif box.height >= box.width:
        middle = box.height // 2
        _fill(new[:middle], mask[:middle], reader, level, Box(box.y0, box.x0, box.y0 + middle, box.x1), laid)
        _fill(new[middle:], mask[middle:], reader, level, Box(box.y0 + middle, box.x0, box.y1, box.x1), laid)
    else:
        middle = box.width // 2
        _fill(new[:, :middle], mask[:, :middle], reader, level, Box(box.y0, box.x0, box.y1, box.x0 + middle), laid)
        _fill(new[:, middle:], mask[:, middle:], reader, level, Box(box.y0, box.x0 + middle, box.y1, box.x1), laid)


def _mean(new: RGB, mask: Mask, reader: TiffReader, box: Box, taps: tuple[Taps, Taps], laid: _Laid) -> None:
    fresh, which = np.zeros((*box.shape, 3), np.uint8), np.zeros(box.shape, bool)
    _paste(fresh, which, box, laid)
    share = weighted(which[..., None].astype(np.float32), *taps)[..., 0]
    if share.max() <= _NOTHING:
        return
    pixels = np.where(which[..., None], fresh, reader.read(0, box))
    means = weighted(pixels, *taps)
    new[...] = np.clip(np.floor(means + np.float32(0.5)), 0, 255).astype(np.uint8)
    mask[...] = share > _NOTHING


def _paste(new: RGB, mask: Mask, box: Box, laid: _Laid) -> None:
    for patch in laid.on(box):
        part = box.intersect(patch.box)
        here, there = part.relative_to(box).slices, part.relative_to(patch.box).slices
        which = patch.mask[there]
        np.copyto(new[here], patch.pixels[there], where=which[..., None])
        mask[here] |= which


def _factor(sizes: Sequence[tuple[int, int]], level: int) -> tuple[float, float]:
    """Px of the slide in a px of a level, down and across."""
    down, across = (full / extent(full, here) for full, here in zip(sizes[0], sizes[level], strict=True))
    return down, across
