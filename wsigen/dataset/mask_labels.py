"""Masks as labels: label images of what their images show, or of the part of a slide that was scanned."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import DatasetError, LayoutError
from wsigen.base.geometry import Box
from wsigen.dataset.images import COPY_FROM_PX
from wsigen.dataset.label_file import Stamp, demand_unchanged, stamp_of
from wsigen.dataset.labels import Size
from wsigen.dataset.settings import Origin
from wsigen.layout.layout import Layout
from wsigen.layout.raster import RasterLayout, Unlisted, Value, check_values, open_label_raster
from wsigen.slide.reading import ImageSource

PADDING = 0.02
"""How much larger than its image a mask with an um/px of its own may be, as whole tiles are: a share of each side."""


@dataclass(frozen=True, slots=True)
class MaskLabels:
    """A label image of the same field.

    Attributes
    ----------
    path : the label image
    values : (value or colour, class name, or an empty one: nobody labelled it)
    rename : (class name in ``values``, class, or None: nobody labelled it)
    unlisted : what becomes of other values (`raster.open_label_raster`)
    mpp : um/px of the mask, or None: it is as large as the image, or coarser by one factor
    copies : folder of tiled copies of large masks without tiles, or None: they are decoded whole
    origin : what it shows of a slide that was scanned in part; None: one that may show the part is refused
    stamp : of the file when this was made; it is refused once it has changed
    """

    path: Path
    table: ClassTable
    values: tuple[tuple[Value, str], ...]
    rename: tuple[tuple[str, str | None], ...] = ()
    unlisted: Unlisted | None = None
    mpp: float | None = None
    copies: Path | None = None
    origin: Origin | None = None
    stamp: Stamp = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamp", stamp_of(self.path))

    @property
    def any(self) -> bool:
        """True: a mask is a label."""
        return True

    def names(self, index: int, image: ImageSource) -> bool:
        """Whether a pixel is of the class."""
        raster, counts = self._open(), self._counts()
        present = np.array([v for v in counts if raster.unlisted != "refuse" or v in raster.values], np.int64)
        return bool((raster.classes_of(present) == index).any())

    def notes(self, image: ImageSource) -> list[tuple[str, str]]:
        """What of the values is not as listed, and whether the mask is coarser than the image.

        Raises
        ------
        DatasetError
            If it is no label image, holds values that are not listed, or shows another field than the image.
        """
        raster = self._open()
        (height, width), field = self._covered(raster, image), self._field(image)
        notes = []
        if (height, width) != field.shape:
            notes.append(f"{width} x {height} px of it are stretched over the {field.width} x {field.height} px of its image")
        with self._told():
            return [(self.path.name, f"mask: {note}") for note in [*check_values(raster, self.table, self._counts()), *notes]]

    def layout(self, image: ImageSource, canvas: Size) -> Layout:
        """Stretch the mask over the image, or over what was scanned of it.

        Raises
        ------
        DatasetError
            If it cannot be read or has changed, or shows another field than the image.
        """
        raster = self._open()
        height, width = self._covered(raster, image)
        stretched = replace(raster, height=canvas[0], width=canvas[1], raster_height=height, raster_width=width)
        field, whole = self._field(image), (image.height, image.width)
        return stretched if field.shape == whole else PartLayout(*canvas, stretched, field, whole)

    def _covered(self, raster: RasterLayout, image: ImageSource) -> Size:
        """How many px of the mask lie on what it shows, by its um/px or else its shape."""
        field, part = self._field(image), image.scanned
        (h, w), (height, width) = (raster.image.height, raster.image.width), field.shape
        what = f"{self.path}: the mask is {w} x {h} px, {'its image' if part != field else 'the part scanned of'} {image.path} "
        what += f"{width} x {height} px"
        if self.mpp is None:
            may_show_part = self.origin is None and part is not None and _one_shape((h, w), part.shape)
            if part is not None and may_show_part and (h, w) != (height, width):
                raise DatasetError(
                    f"{what}, of which {part.width} x {part.height} px at {part.x0}, {part.y0} were scanned: it may show "
                    "either; say which in the source: 'origin: scanned' (as QuPath writes masks) or 'origin: whole'"
                )
            if not _one_shape((h, w), (height, width)):
                raise DatasetError(f"{what}: not the same shape; crop the mask to the image, or give 'mask_mpp'")
            return h, w
        rows, columns = replace(image, height=height, width=width).canvas(self.mpp)
        beyond = max(h - rows - 1 - PADDING * rows, w - columns - 1 - PADDING * columns)
        if beyond > 0 or rows - h > 1 or columns - w > 1:
            remedy = "correct the um/px of one of them, or leave 'mask_mpp' out if both show the same field"
            if self.origin is None and part is not None:
                remedy += f"; 'origin: scanned' if it shows the {part.width} x {part.height} px that were scanned"
            elif image.mpp and _one_shape((h, w), (height, width)):
                remedy += f" ({image.mpp * width / w:.4g} would fit)"
            raise DatasetError(f"{what}, {columns} x {rows} px at mask_mpp {self.mpp:g}; {remedy}")
        return min(h, rows), min(w, columns)

    def _field(self, image: ImageSource) -> Box:
        """What of the image the mask shows."""
        part = image.scanned if self.origin == "scanned" else None
        return part or Box(0, 0, image.height, image.width)

    def _open(self) -> RasterLayout:
        with self._told():
            demand_unchanged(self.path, self.stamp)
            return _open_mask(self)

    def _counts(self) -> Mapping[int, int]:
        with self._told():
            return _count_mask(self)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what is wrong in words of a dataset."""
        try:
            yield
        except LayoutError as error:
            if not error.causes:
                raise DatasetError(str(error)) from None
            lossy = "; save the mask as PNG or TIFF without loss" if "lossy" in error.causes[0] else ""
            remedy = (
                lossy or "; list them in 'values' (null: nobody labelled it), or give 'unlisted: ignore' or 'unlisted: nearest'"
            )
            raise DatasetError(f"{self.path}: {'; '.join(error.causes)}{remedy}") from None


def _one_shape(mask: Size, field_px: Size) -> bool:
    """Whether a mask may show a field, pixel by pixel or coarser, but for a px of the mask."""
    (h, w), (height, width) = mask, field_px
    return max((w - 1) / width, (h - 1) / height) < min((w + 1) / width, (h + 1) / height)


@functools.lru_cache(maxsize=256)
def _open_mask(labels: MaskLabels) -> RasterLayout:
    raster = open_label_raster(labels.path, labels.table, dict(labels.values), UNKNOWN, dict(labels.rename), labels.unlisted)
    image = raster.image
    if labels.copies is None or image.by_region or image.height * image.width <= COPY_FROM_PX:
        return raster
    return replace(raster, image=image.copied(labels.copies))


@functools.lru_cache(maxsize=256)
def _count_mask(labels: MaskLabels) -> Mapping[int, int]:
    return _open_mask(labels).image.counts()


@dataclass(frozen=True, slots=True, eq=False)
class PartLayout(Layout):
    """A label image stretched over a part of the slide; of the rest nobody said anything. See `layout.Layout`.

    Attributes
    ----------
    height, width : canvas (px)
    raster : the label image
    part : what it shows, px of the full resolution
    size : ``(height, width)`` of the full resolution
    """

    height: int
    width: int
    raster: RasterLayout
    part: Box
    size: Size

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Read the labels under the centres (`Layout.classes`)."""
        first, length = (self.part.y0, self.part.x0), self.part.shape
        raster_size = self.raster.raster_height, self.raster.raster_width
        out, inside, under = np.full(box.shape, UNKNOWN, np.uint8), [], []
        for axis, cells in enumerate((np.arange(box.y0, box.y1), np.arange(box.x0, box.x1))):
            canvas = (self.height, self.width)[axis]
            beyond_first = (2 * cells + 1) * cell_px * self.size[axis] - 2 * first[axis] * canvas  # in whole numbers
            px = beyond_first * raster_size[axis] // (2 * canvas * length[axis])
            inside.append(np.flatnonzero((px >= 0) & (px < raster_size[axis])))
            under.append(px[inside[-1]])
        if all(map(len, inside)):
            out[np.ix_(*inside)] = self.raster.classes_at(*under)
        return out
