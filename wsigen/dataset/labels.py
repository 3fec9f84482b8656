"""Labels of an image: where which class is, at any um/px.

`Labels` is what a person said about an image, as read; its `Labels.layout` answers for every cell (`layout.Layout`). Nothing
here knows a dataset: evaluation reads the annotations beside a slide as `PolygonLabels`, too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import DatasetError, LayoutError
from wsigen.base.geometry import Box
from wsigen.dataset.label_file import Stamp, demand_unchanged, stamp_of
from wsigen.dataset.settings import Origin
from wsigen.layout.geojson import read_geojson
from wsigen.layout.layout import Layout, UniformLayout
from wsigen.layout.polygons import PolygonLayout
from wsigen.slide.reading import ImageSource

Size = tuple[int, int]


class Labels(Protocol):
    """What somebody said about an image."""

    @property
    def any(self) -> bool:
        """Whether there is a label at all."""
        ...

    def names(self, index: int, image: ImageSource) -> bool:
        """Whether the image has the class somewhere (once its labels could be read)."""
        ...

    def notes(self, image: ImageSource) -> list[tuple[str, str]]:
        """What a person should know of them: (file, note)."""
        ...

    def layout(self, image: ImageSource, canvas: Size) -> Layout:
        """Return the classes, or `classes.UNKNOWN`, on the image resized to ``canvas`` (height, width) px."""
        ...


@dataclass(frozen=True, slots=True)
class WholeLabel:
    """One class everywhere (a tile), or `classes.UNKNOWN` (an unlabelled slide)."""

    class_index: int

    @property
    def any(self) -> bool:
        """Whether it is a class."""
        return self.class_index != UNKNOWN

    def names(self, index: int, image: ImageSource) -> bool:
        """Whether it is this class."""
        return self.class_index == index

    def notes(self, image: ImageSource) -> list[tuple[str, str]]:
        """Nothing."""
        return []

    def layout(self, image: ImageSource, canvas: Size) -> Layout:
        """Return it everywhere."""
        return UniformLayout(*canvas, self.class_index)


@dataclass(frozen=True, slots=True)
class PolygonLabels:
    """QuPath's polygons.

    Attributes
    ----------
    background : class index outside every polygon, or `classes.UNKNOWN`
    rename : classification in the file -> class, or None: as if it were not drawn
    nuclei : class of cells' nuclei, or None: they are left out
    origin : where coordinates count from on a slide that was scanned in part
    stamp : of the file when this was made; it is refused once it has changed
    """

    path: Path
    table: ClassTable
    background: int = UNKNOWN
    rename: Mapping[str, str | None] = field(default_factory=dict)
    nuclei: str | None = None
    origin: Origin = "scanned"
    stamp: Stamp = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamp", stamp_of(self.path))

    @property
    def any(self) -> bool:
        """True: a file without polygons is an error."""
        return True

    def names(self, index: int, image: ImageSource) -> bool:
        """Whether a polygon, or the background, is of the class."""
        return index == self.background or bool((self._read(image).polygons.classes == index).any())

    def notes(self, image: ImageSource) -> list[tuple[str, str]]:
        """What of the file is left out or mended."""
        name, drawn_on = self.path.name, self._field(image)
        notes = [note.removeprefix(f"{name}: ") for note in self._read(image).notes]
        if (drawn_on.y0, drawn_on.x0) != (0, 0):
            corner = f"x={drawn_on.x0}, y={drawn_on.y0} px"
            notes.append(f"coordinates count from {corner}, where the scanned part begins: as QuPath's (else 'origin: whole')")
        return [(name, note) for note in notes]

    def layout(self, image: ImageSource, canvas: Size) -> Layout:
        """Read the polygons in px of the image and scale them.

        Raises
        ------
        DatasetError
            If the file is unusable or has changed, a polygon lies outside or its class is not in the table.
        """
        layout = self._read(image)
        sy, sx = canvas[0] / layout.height, canvas[1] / layout.width
        return replace(layout, height=canvas[0], width=canvas[1], scale=(sy, sx))

    def _read(self, image: ImageSource) -> PolygonLayout:
        demand_unchanged(self.path, self.stamp)
        names, drawn_on = tuple(sorted(self.rename.items())), self._field(image)
        layout = _read_polygons(self.path, self.stamp, self.table, self.background, names, self.nuclei, drawn_on)
        return replace(layout, height=image.height, width=image.width)

    def _field(self, image: ImageSource) -> Box:
        """The part of the image that was drawn on."""
        drawn = image.scanned if self.origin == "scanned" else None
        return drawn or Box(0, 0, image.height, image.width)


@functools.lru_cache(maxsize=64)
def _read_polygons(
    path: Path,
    stamp: Stamp,
    table: ClassTable,
    background: int,
    names: tuple[tuple[str, str | None], ...],
    nuclei: str | None,
    drawn_on: Box,
) -> PolygonLayout:
    """Read a file once for all um/px, in px of the whole image.

    Again after 64 others, so that those of many images never lie in memory together.
    """
    # Glass alone is a fine annotation here, and UNKNOWN is no class: read with a tissue class outside, then replace.
    outside = next((i for i, c in enumerate(table) if not c.background), 0)
    try:
        layout = read_geojson(path, table, drawn_on.shape, outside, names=dict(names), nuclei=nuclei)
    except LayoutError as error:
        cause = f"{path}: {'; '.join(error.causes)}" if error.causes else str(error).split(";")[0]
        also = ", or give 'origin: whole' if coordinates count from the whole slide's corner" * bool(drawn_on.y0 or drawn_on.x0)
        raise DatasetError(f"{cause}; mend the annotation in QuPath, or 'classes' or 'names' in the dataset{also}") from None
    return replace(layout, background=background, polygons=layout.polygons.moved(drawn_on.x0, drawn_on.y0))


@dataclass(frozen=True, slots=True, eq=False)
class PointLabels:
    """Discs around points (spots of spatial transcriptomics); everywhere else nobody knows.

    Attributes
    ----------
    where : the table they are from, for messages
    centres : float64 [n, 2] of (x, y) in px of the image, or um
    labels : uint8 [n], class indices
    in_um : whether they are in um
    radius_px, radius_um : one of the two
    origin : where x and y count from on a slide that was scanned in part; None: such slides are refused
    """

    where: str
    centres: NDArray[np.float64]
    labels: NDArray[np.uint8]
    in_um: bool = False
    radius_px: float | None = None
    radius_um: float | None = None
    origin: Origin | None = None

    @property
    def any(self) -> bool:
        """Whether a point lies on this image."""
        return len(self.labels) > 0

    def names(self, index: int, image: ImageSource) -> bool:
        """Whether a point is of the class."""
        return bool((self.labels == index).any())

    def notes(self, image: ImageSource) -> list[tuple[str, str]]:
        """Nothing: what is left out of a table is said of all images together (DatasetError as in `layout`)."""
        self._corner(image)
        return []

    def layout(self, image: ImageSource, canvas: Size) -> Layout:
        """Scale the discs.

        Raises
        ------
        DatasetError
            If a point lies outside of the image, or nobody says where x and y count from.
        """
        mpp = float(image.mpp or 1)
        centres = (self.centres / (mpp, mpp * image.aspect) if self.in_um else self.centres) + self._corner(image)
        x, y = centres.T
        outside = np.flatnonzero((x < 0) | (y < 0) | (x > image.width) | (y > image.height))
        if len(outside):
            x, y = centres[outside[0]]
            unit = f"um, at {mpp:g} um/px" if self.in_um else "px of the full resolution"
            raise DatasetError(
                f"{self.where}: {len(outside)} points outside of the image of {image.width} x {image.height} px, "
                f"the first at x={x:.0f}, y={y:.0f} px; x and y are read as {unit}: check 'unit' and 'columns', or the um/px"
            )
        factor = np.array([canvas[1] / image.width, canvas[0] / image.height])
        across = float(factor[0])  # um/px is that of x
        radius = self.radius_px * float(factor.mean()) if self.radius_px else (self.radius_um or 0) / mpp * across
        return PointLayout(*canvas, centres * factor, self.labels, radius)

    def _corner(self, image: ImageSource) -> tuple[int, int]:
        """Where on the image (x, y) its points count from, px."""
        part = image.scanned
        if part is None or self.origin == "whole" or (part.x0, part.y0) == (0, 0):
            return 0, 0
        if self.origin is None and self.any:
            raise DatasetError(
                f"{self.where}: of this slide the part at x={part.x0}, y={part.y0} px was scanned; say where x and y count "
                "from: 'origin: scanned' (QuPath) or 'origin: whole' in the source"
            )
        return part.x0, part.y0


@dataclass(frozen=True, slots=True, eq=False)
class PointLayout(Layout):
    """Discs of one radius; where discs of different classes overlap the class is unknown. See `layout.Layout`.

    Attributes
    ----------
    height, width : canvas (px)
    centres : float64 [n, 2] of (x, y) in px of the canvas
    labels : uint8 [n], class indices
    radius : px of the canvas
    """

    height: int
    width: int
    centres: NDArray[np.float64]
    labels: NDArray[np.uint8]
    radius: float

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Paint the discs near a box (`Layout.classes`)."""
        out = np.full(box.shape, UNKNOWN, np.uint8)
        contested = np.zeros(box.shape, bool)
        for which in np.flatnonzero(self._near(box, cell_px)):
            (x, y), label = self.centres[which], self.labels[which]
            part = self._cells(x, y, cell_px).intersect(box)
            if part.empty:
                continue
            py = (np.arange(part.y0, part.y1) + 0.5) * cell_px - y
            px = (np.arange(part.x0, part.x1) + 0.5) * cell_px - x
            disc = py[:, None] ** 2 + px[None] ** 2 <= self.radius**2
            here = part.relative_to(box).slices
            contested[here] |= disc & (out[here] != UNKNOWN) & (out[here] != label)
            out[here][disc] = label
        out[contested] = UNKNOWN
        return out

    def _cells(self, x: float, y: float, cell_px: int) -> Box:
        y0, x0 = math.floor((y - self.radius) / cell_px), math.floor((x - self.radius) / cell_px)
        return Box(y0, x0, math.ceil((y + self.radius) / cell_px) + 1, math.ceil((x + self.radius) / cell_px) + 1)

    def _near(self, inner: Box, cell_px: int) -> NDArray[np.bool_]:
        x, y = self.centres.T
        reach = self.radius + cell_px
        across = (x >= inner.x0 * cell_px - reach) & (x <= inner.x1 * cell_px + reach)
        return np.asarray(across & (y >= inner.y0 * cell_px - reach) & (y <= inner.y1 * cell_px + reach))
