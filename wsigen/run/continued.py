"""A slide whose pixels are known: where it lies on the one that is made, and which of its places are made anew.

A slide is continued beyond its edges (``extend``), or a window of it is made in which some places change (``regions`` besides).
Layout and regions of an edit are drawn on the old slide and count its pixels; without regions a layout counts those of the new
one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import ConfigError, ImageError
from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout, UniformLayout
from wsigen.layout.polygons import PolygonLayout
from wsigen.run.config import RunConfig
from wsigen.sampling.known import GLASS, NEVER, Starts, first_step, graded_starts
from wsigen.sampling.passes import PassPlan
from wsigen.slide.marks import synthetic_mark
from wsigen.slide.placed import PlacedImage

SAME_MPP = 0.02
"""Relative difference of um/px that is let pass."""

NOTHING = 254
"""Class index where no region is drawn; no class has it."""


def placed_slide(config: RunConfig, mpp: float) -> PlacedImage:
    """Open the slide that is continued.

    Parameters
    ----------
    mpp : float
        um/px of the slide that is made.

    Raises
    ------
    ImageError
        If it cannot be read, does not say its um/px, or has others than the model makes.
    """
    from wsigen.slide.reading import open_image

    path = config.extend
    source = open_image(str(path)).stated(config.extend_mpp)
    x, y = config.at or (0, 0)
    if source.mpp is None:
        raise ImageError(f"{path}: does not say its um/px; give it (--extend-mpp, of an edit --slide-mpp)")
    far = max(abs(source.mpp / mpp - 1.0), abs(source.mpp * source.aspect / mpp - 1.0))
    if far <= SAME_MPP:
        return PlacedImage(source, (source.height, source.width), (y, x))
    if not config.resample:
        raise ImageError(
            f"{path}: has {source.mpp:.4g} um/px, the model makes {mpp:.4g}; add --resample, or use a --model of its um/px"
        )
    square = replace(source, aspect=1.0) if abs(source.aspect - 1.0) <= SAME_MPP else source  # drawings have one scale
    return PlacedImage(square, square.canvas(mpp), (y, x))


def synthetic_of(config: RunConfig) -> Literal["true", "partly"]:
    """Whether a slide is synthetic: in part, if one is continued that was scanned."""
    return "true" if config.extend is None or synthetic_mark(config.extend) == "true" else "partly"


@dataclass(frozen=True, slots=True)
class Continued:
    """What is known of a slide that is made from another.

    Attributes
    ----------
    placed : PlacedImage
        The old slide on the new one.
    size : tuple of int
        ``(height, width)`` of the new one, px.
    factor : int
        Side of a latent px of the finest level, px.
    regions : Layout or None
        Places that are made anew, in px of the old slide, `NOTHING` elsewhere; None: the old slide stays as it is.
    margin_px, strength : float
        How far around them it changes, and how much they do.
    """

    placed: PlacedImage
    size: tuple[int, int]
    factor: int
    regions: Layout | None = None
    margin_px: float = 0.0
    strength: float = 1.0

    def starts(self, plan: PassPlan, box: Box, bare: NDArray[np.bool_]) -> Starts:
        """The steps from which the pixels of a box of a pass are denoised (`wsigen.sampling.known`), uint16 ``(h, w)``.

        Parameters
        ----------
        box : Box
            On the canvas of the pass, latent px.
        bare : ndarray
            Where the class map says glass, bool ``(h, w)``.
        """
        inside = self._inside(plan, box)
        if self.regions is None:
            return np.where(inside, NEVER, np.where(bare, GLASS, 0)).astype(np.uint16)
        margin = self.margin_px / plan.cell_px
        around = box.dilate(math.ceil(margin) + 1).intersect(plan.grid.canvas)
        distance = _distance(self._anew(plan, around))[box.relative_to(around).slices]
        first = first_step(plan.schedule, plan.strength, self.strength)
        starts = graded_starts(distance, margin, first, plan.steps)
        starts[bare] = np.where(distance[bare] == 0, GLASS, NEVER)  # glass that is drawn erases; glass that was there stays
        starts[~inside] = np.where(bare[~inside], GLASS, 0)
        return starts

    def _inside(self, plan: PassPlan, box: Box) -> NDArray[np.bool_]:
        """Latent px that the old slide covers as far as they lie on the new one."""
        cell, where = plan.cell_px, self.placed.box
        ys, xs = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
        rows = (ys * cell >= where.y0) & (np.minimum((ys + 1) * cell, self.size[0]) <= where.y1)
        columns = (xs * cell >= where.x0) & (np.minimum((xs + 1) * cell, self.size[1]) <= where.x1)
        return np.asarray(rows[:, None] & columns[None, :])

    def _anew(self, plan: PassPlan, box: Box) -> NDArray[np.bool_]:
        """Latent px of a pass of which any part is made anew."""
        assert self.regions is not None
        ratio = plan.cell_px // self.factor
        drawn = Shifted(self.regions, self.placed.at, self.size).class_map(box.scale(ratio), self.factor) != NOTHING
        return np.asarray(drawn.reshape(box.height, ratio, box.width, ratio).any(axis=(1, 3)))


def _distance(anew: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From the next latent px that is made anew; infinite where there is none."""
    return np.asarray(ndimage.distance_transform_edt(~anew)) if anew.any() else np.full(anew.shape, np.inf)


class Shifted(Layout):
    """A layout of a slide, read on another one on which the slide lies at ``at`` (y, x), a multiple of every cell read."""

    def __init__(self, layout: Layout, at: tuple[int, int], size: tuple[int, int]) -> None:
        self._layout, self._at = layout, at
        self.height, self.width = size

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Those of the layout there (`Layout.classes`)."""
        return np.asarray(self._layout.class_map(box.shift(-self._at[0] // cell_px, -self._at[1] // cell_px), cell_px))


class Edited(Layout):
    """A layout with regions over it."""

    def __init__(self, below: Layout, regions: Layout) -> None:
        self._below, self._regions = below, regions
        self.height, self.width = below.height, below.width

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """A region's class where one is drawn, else the one below."""
        drawn = self._regions.class_map(box, cell_px)
        return np.where(drawn == NOTHING, self._below.class_map(box, cell_px), drawn)


class Free(Layout):
    """A layout that shows glass wherever the old slide stays: what a run costs depends on the rest."""

    def __init__(self, layout: Layout, continued: Continued, plan: PassPlan, glass: int) -> None:
        self._layout, self._continued, self._plan, self._glass = layout, continued, plan, glass
        self.height, self.width = layout.height, layout.width

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Glass where nothing is denoised."""
        classes, cell = self._layout.class_map(box, cell_px), self._plan.cell_px
        if self._continued.regions is None:  # a slide may be large, and is read coarsely
            where = self._continued.placed.box
            down, across = (np.arange(a, b) * cell_px + cell_px // 2 for a, b in ((box.y0, box.y1), (box.x0, box.x1)))
            rows, columns = (down >= where.y0) & (down < where.y1), (across >= where.x0) & (across < where.x1)
            return np.where(rows[:, None] & columns, np.uint8(self._glass), classes)
        ys, xs = ((np.arange(a, b) * cell_px + cell_px // 2) // cell for a, b in ((box.y0, box.y1), (box.x0, box.x1)))
        ys, xs = np.clip(ys, 0, self._plan.height - 1), np.clip(xs, 0, self._plan.width - 1)
        read = Box(int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)
        glass = np.asarray(self._layout.class_map(read, cell) == self._glass)
        starts = self._continued.starts(self._plan, read, glass)[np.ix_(ys - read.y0, xs - read.x0)]
        return np.where(starts >= NEVER, np.uint8(self._glass), classes)


def read_regions(config: RunConfig, table: ClassTable, placed: PlacedImage) -> PolygonLayout:
    """Read the places that are made anew, in px of the old slide, `NOTHING` elsewhere (LayoutError)."""
    from wsigen.layout.geojson import read_geojson

    assert config.regions is not None
    scale = placed.size[1] / placed.source.width
    return read_geojson(config.regions, table, placed.size, NOTHING, scale, config.layout_names, whole=False)


def edited_layout(config: RunConfig, table: ClassTable, mpp: float) -> Layout:
    """The class map of a window of a slide that is edited.

    Outside the regions it is that of the slide's annotations; where they say nothing, or there are none, the background that
    is set, or no class is known.
    """
    from wsigen.layout.read import read_layout

    assert config.size is not None
    placed = placed_slide(config, mpp)
    size = (config.size[1], config.size[0])
    regions = read_regions(config, table, placed)
    below: Layout = UniformLayout(*placed.size, UNKNOWN)
    if config.layout_file is not None:
        background = table.index(config.background) if config.background else UNKNOWN
        scale = config.layout_mpp / mpp if config.layout_mpp else placed.size[1] / placed.source.width
        named = (config.layout_classes, config.layout_names)
        below = read_layout(config.layout_file, table, placed.size, background, scale, *named, layout_mpp=config.layout_mpp)
    return Edited(Shifted(below, placed.at, size), Shifted(regions, placed.at, size))


def continued_of(config: RunConfig, table: ClassTable, mpp: float, factor: int) -> Continued | None:
    """What is known of a run's slide, if it is made from another one.

    Parameters
    ----------
    factor : int
        Side of a latent px of the finest level, px.

    Raises
    ------
    ConfigError
        If the old slide lies beside the new one.
    """
    if config.extend is None or config.size is None:
        return None
    placed, size = placed_slide(config, mpp), (config.size[1], config.size[0])
    if placed.box.intersect(Box(0, 0, *size)).empty:
        raise ConfigError(f"setting 'at': {config.extend} lies outside the new slide of {size[1]}x{size[0]} px; check 'at'")
    if config.regions is None:
        return Continued(placed, size, factor)
    regions = read_regions(config, table, placed)
    return Continued(placed, size, factor, regions, config.margin_um / mpp, config.edit_strength)
