"""`Member`: an image, its pixels, tissue and classes at every um/px."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.geometry import Box
from wsigen.dataset.labels import Labels, Size
from wsigen.dataset.settings import CELL_PX
from wsigen.layout.layout import Layout
from wsigen.slide.reading import ImageSource
from wsigen.slide.tissue import Mask, sample


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """An image and what is known about it.

    Attributes
    ----------
    name : what people call it, e.g. its path from a dataset's root
    path : the file as its owner knows it
    reference : its pixels (of a tiled copy where the original cannot be read by region), size and um/px
    labels : where which class is
    table : the classes that labels are positions in
    mask : tissue on a small view, or None: all of it (tiles)
    glass : class index of unlabelled cells outside the tissue, or None: unknown
    group : patient or slide it is of, or None if nobody knows
    subtype : of the slide, or None
    """

    name: str
    path: Path
    reference: ImageSource
    labels: Labels
    table: ClassTable
    mask: Mask | None = None
    glass: int | None = None
    group: str | None = None
    subtype: str | None = None

    @property
    def mpp(self) -> float:
        """um/px of the full resolution; 1, as if px were um, where nobody knows (``reference.mpp`` is None)."""
        return 1.0 if self.reference.mpp is None else self.reference.mpp

    @property
    def labelled(self) -> bool:
        """Whether the image has any label, be it glass alone."""
        return self.labels.any or (self.glass is not None and self.mask is not None and not self.mask.all())

    def canvas(self, mpp: float) -> Size:
        """Size (height, width) of the image resampled to ``mpp`` um/px."""
        return self.reference.canvas(mpp)

    def image(self, box: Box, mpp: float) -> NDArray[np.uint8]:
        """Read RGB uint8 ``[h, w, 3]`` of a box in px of the image resampled to ``mpp`` um/px."""
        return self.reference.region(box, self.canvas(mpp))

    def layout(self, mpp: float) -> Layout:
        """Return the labels on the image resampled to ``mpp`` um/px: a class of ``table`` everywhere, or `classes.UNKNOWN`."""
        return self.labels.layout(self.reference, self.canvas(mpp))

    def class_map(self, box: Box, mpp: float, cell_px: int = CELL_PX) -> NDArray[np.uint8]:
        """Return uint8 ``[h / c, w / c]``: classes of the cells of c px of a box whose sides and corner are multiples of c."""
        classes = self.layout(mpp).class_map(_cells(box, cell_px), cell_px)
        if self.glass is not None:
            classes[(classes == UNKNOWN) & ~self.tissue(box, mpp, cell_px)] = self.glass
        return classes

    def overview(self, cell_um: float) -> NDArray[np.uint8]:
        """Return uint8 ``[h, w]``: classes of the whole image in cells of about ``cell_um`` um, at their centres."""
        mpp = cell_um / CELL_PX
        height, width = (max(1, round(side / CELL_PX)) * CELL_PX for side in self.canvas(mpp))
        return self.class_map(Box(0, 0, height, width), mpp)

    def tissue(self, box: Box, mpp: float, cell_px: int = CELL_PX) -> Mask:
        """Return bool ``[h / c, w / c]``: which cells of c px of a box are tissue."""
        if self.mask is None:
            return np.ones(_cells(box, cell_px).shape, bool)
        return sample(self.mask, self.canvas(mpp), _cells(box, cell_px), cell_px)


def _cells(box: Box, cell_px: int) -> Box:
    return Box(box.y0 // cell_px, box.x0 // cell_px, box.y1 // cell_px, box.x1 // cell_px)
