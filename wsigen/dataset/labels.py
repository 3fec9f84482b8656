"""Labels of an image: where which class is, at any level's um/px."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import DatasetError, LayoutError
from wsigen.dataset.points import PointLayout
from wsigen.layout.geojson import Area, GeoJsonLayout, read_geojson
from wsigen.layout.layout import Layout
from wsigen.layout.uniform import UniformLayout

Size = tuple[int, int]


class Labels(Protocol):
    """What somebody said about an image of ``size`` (height, width) px."""

    @property
    def any(self) -> bool:
        """Whether there is a label at all."""
        ...

    def layout(self, size: Size, canvas: Size) -> Layout:
        """Return the classes on the image resized to ``canvas`` px."""
        ...


@dataclass(frozen=True, slots=True)
class WholeLabel:
    """One class everywhere (a tile), or `classes.UNKNOWN` (an unlabelled slide)."""

    class_index: int

    @property
    def any(self) -> bool:
        """Whether it is a class."""
        return self.class_index != UNKNOWN

    def layout(self, size: Size, canvas: Size) -> Layout:
        """Return it everywhere."""
        return UniformLayout(*canvas, self.class_index)


@dataclass(frozen=True, slots=True)
class PolygonLabels:
    """QuPath's polygons; ``background`` is a class index or `classes.UNKNOWN`, ``rename`` as in the source's ``names``."""

    path: Path
    table: ClassTable
    background: int
    rename: Mapping[str, str | None]

    @property
    def any(self) -> bool:
        """True: a file without polygons is an error."""
        return True

    def names(self, index: int) -> bool:
        """Whether a polygon, or the background, is of the class (in a file that could be read before)."""
        return index == self.background or any(a.class_index == index for a in self._read(None).areas)

    def layout(self, size: Size, canvas: Size) -> Layout:
        """Read the polygons in px of the image and scale them.

        Raises
        ------
        DatasetError
            If the file is unusable, a polygon lies outside or its class is not the dataset's.
        """
        return _scaled(self._read(size), canvas)

    def _read(self, size: Size | None) -> GeoJsonLayout:
        # Glass alone is a fine annotation here, and UNKNOWN is no class: read with a tissue class outside, then replace.
        outside = next((i for i, c in enumerate(self.table) if not c.background), 0)
        try:
            layout = read_geojson(self.path, self.table, size, outside, names=self.rename)
        except LayoutError as error:
            cause = str(error).split(";")[0]
            raise DatasetError(f"{cause}; mend the annotation in QuPath, or 'classes' or 'names' in the dataset") from None
        return replace(layout, background=self.background)


def _scaled(layout: GeoJsonLayout, canvas: Size) -> GeoJsonLayout:
    sy, sx = canvas[0] / layout.height, canvas[1] / layout.width
    factors = np.array([sy, sx, sy, sx])
    areas = tuple(Area(a.class_index, _bounds(a, factors), a.edges * factors) for a in layout.areas)
    return replace(layout, height=canvas[0], width=canvas[1], areas=areas)


def _bounds(area: Area, factors: NDArray[np.float64]) -> tuple[float, float, float, float]:
    y0, x0, y1, x1 = (float(v) for v in np.array(area.bounds) * factors)
    return y0, x0, y1, x1


@dataclass(frozen=True, slots=True, eq=False)
class PointLabels:
    """Discs around points; ``centres`` float64 [n, 2] (x, y) px of the image, ``labels`` uint8 [n]."""

    where: str
    centres: NDArray[np.float64]
    labels: NDArray[np.uint8]
    radius: float

    @property
    def any(self) -> bool:
        """Whether a point lies on this image."""
        return len(self.labels) > 0

    def layout(self, size: Size, canvas: Size) -> Layout:
        """Scale the discs.

        Raises
        ------
        DatasetError
            If a point lies outside of the image.
        """
        x, y = self.centres.T
        outside = np.flatnonzero((x < 0) | (y < 0) | (x > size[1]) | (y > size[0]))
        if len(outside):
            x, y = self.centres[outside[0]]
            raise DatasetError(
                f"{self.where}: {len(outside)} points outside of the image of {size[1]} x {size[0]} px, "
                f"the first at x={x:.0f}, y={y:.0f}; give x and y in px of the full resolution"
            )
        factor = np.array([canvas[1] / size[1], canvas[0] / size[0]])
        return PointLayout(*canvas, self.centres * factor, self.labels, self.radius * float(factor.mean()))
