"""`Member`: an image of the dataset, its pixels and classes at every level."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.dataset.batch import CELL_PX
from wsigen.dataset.labels import Labels
from wsigen.dataset.tissue import Mask, sample
from wsigen.layout.layout import Layout
from wsigen.slide.reference import Reference

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """An image and what is known about it.

    Attributes
    ----------
    name : path from the dataset's root
    kind : of its source (tiles, annotated, points, unlabelled)
    height, width : px of the full resolution
    mpp : um/px of the full resolution
    group : patient or slide
    subtype : of the slide, or None
    pixels : the file the pixels are read from (a tiled copy where the original cannot be read by region)
    labels : where which class is
    mask : tissue on a small view, or None: all of it (tiles)
    glass : class index of unlabelled cells outside the tissue, or None: unknown
    """

    name: str
    path: Path
    kind: str
    height: int
    width: int
    mpp: float
    group: str
    subtype: str | None
    pixels: str
    labels: Labels
    mask: Mask | None
    glass: int | None = None

    @property
    def labelled(self) -> bool:
        """Whether the image has any label, be it glass alone."""
        return self.labels.any or (self.glass is not None and self.mask is not None and not self.mask.all())

    def canvas(self, mpp: float) -> Size:
        """Size (height, width) of the image resampled to ``mpp`` um/px."""
        return max(1, round(self.height * self.mpp / mpp)), max(1, round(self.width * self.mpp / mpp))

    def image(self, box: Box, mpp: float) -> NDArray[np.uint8]:
        """Read RGB uint8 ``[h, w, 3]`` of a box in px of the image resampled to ``mpp`` um/px."""
        return Reference(self.pixels, self.height, self.width, self.mpp).region(box, self.canvas(mpp))

    def class_map(self, box: Box, mpp: float) -> NDArray[np.uint8]:
        """Return uint8 ``[h/8, w/8]``: classes of the 8 px cells of a box whose sides are multiples of 8."""
        classes = _layout(self, mpp).class_map(_cells(box), CELL_PX)
        if self.glass is not None:
            classes[(classes == UNKNOWN) & ~self.tissue(box, mpp)] = self.glass
        return classes

    def overview(self, cell_um: float) -> NDArray[np.uint8]:
        """Return uint8 ``[h, w]``: classes of the whole image in cells of about ``cell_um`` um, at their centres."""
        mpp = cell_um / CELL_PX
        height, width = (max(1, round(side / CELL_PX)) * CELL_PX for side in self.canvas(mpp))
        return self.class_map(Box(0, 0, height, width), mpp)

    def tissue(self, box: Box, mpp: float) -> Mask:
        """Return bool ``[h/8, w/8]``: which cells of a box are tissue."""
        if self.mask is None:
            return np.ones(_cells(box).shape, bool)
        return sample(self.mask, self.canvas(mpp), _cells(box), CELL_PX)


def _cells(box: Box) -> Box:
    return Box(box.y0 // CELL_PX, box.x0 // CELL_PX, box.y1 // CELL_PX, box.x1 // CELL_PX)


@functools.lru_cache(maxsize=64)
def _layout(member: Member, mpp: float) -> Layout:
    """Annotations are read again after 64 other images: a large dataset's never lie in memory together."""
    return member.labels.layout((member.height, member.width), member.canvas(mpp))
