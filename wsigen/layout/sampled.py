"""`SampledLayout`: a random slide layout drawn by rule, not learned from slides.

This is a **procedural layout sampler**: smooth noise fields cut at thresholds. Its pieces, holes, cracks and nested
regions look like those of a section and have the asked shares; beyond that it knows nothing of anatomy or disease.
Any box can be drawn alone, by any process, and equals the whole: (seed, size, um/px, class table, subtype) decide
every cell.

The class of the tissue: regions are split again and again by smooth fields, to the asked shares. The classes of one region are
split off one after the other, the rarest first, as the level set of a field of their own; what is left is the most frequent
one, which so becomes the ground the others lie in. A class within another is split off inside the regions of that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.layout.section import Section, make_section
from wsigen.layout.smooth_noise import SmoothField
from wsigen.layout.specks import without_specks
from wsigen.layout.subtypes import Mixture, SectionShape, Subtype, mixture_of

Floats = NDArray[np.float64]

SAMPLE = 400
"""Places per side at which the thresholds are read: 160,000 on a slide of any size, an error of areas below 0.2 %."""

SPECK_UM2 = 250.0
"""Area of the largest region that is a speck, um^2: that of a nucleus or two."""

_FIRST_FIELD = 16

_FIELDS_PER_CLASS = 2

_WARP_FIELDS = (8, 9)

_WARP = 0.45
"""Mean shift of a place before its region is looked up, in regions: turns blobs into strands and bays."""


@dataclass(frozen=True, slots=True)
class SampledLayout(Layout):
    """A layout made of smooth random fields.

    Attributes
    ----------
    height, width : int
        Of the slide (px).
    section : Section
        Where there is tissue.
    nesting : Nesting
        Which class it is.
    glass : int
        Class index of bare glass.
    speck_px : float
        Area of the largest region that is taken for a speck and given to a class beside it (slide px).
    """

    height: int
    width: int
    section: Section
    nesting: Nesting
    glass: int
    speck_px: float

    strip_cells = 2**19  # about 250 bytes a cell

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Draw the tissue and, in it, the classes, without specks (`Layout.classes`)."""
        largest = int(self.speck_px / cell_px**2)
        return without_specks(lambda around: self._drawn(around, cell_px), box, self.canvas(cell_px), largest)

    def _drawn(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        ys = (np.arange(box.y0, box.y1, dtype=np.float64) + 0.5) * cell_px
        xs = (np.arange(box.x0, box.x1, dtype=np.float64) + 0.5) * cell_px
        tissue = self.section.tissue(ys, xs)
        out = np.full(tissue.shape, self.glass, np.uint8)
        i, j = np.nonzero(tissue)
        out[i, j] = self.nesting.classes(ys[i], xs[j])
        return out


def sample_layout(
    seed: int, size: tuple[int, int], table: ClassTable, glass: int, name: str, subtype: Subtype, mpp: float
) -> SampledLayout:
    """Draw a layout.

    Parameters
    ----------
    seed : int
        0 .. 2**64 - 1.
    size : tuple of int
        ``(height, width)`` of the slide (px).
    glass : int
        Index of the class around the tissue.
    name, subtype : str, Subtype
        Shares and shapes.
    mpp : float
        um per slide px.

    Raises
    ------
    LayoutError
        If the subtype names a class that is not in ``table`` or is bare glass.
    """
    height, width = size
    mixture = mixture_of(name, subtype, table)
    ys = (np.arange(SAMPLE, dtype=np.float64) + 0.5) * (height / SAMPLE)
    xs = (np.arange(SAMPLE, dtype=np.float64) + 0.5) * (width / SAMPLE)
    section = make_section(seed, height, width, subtype.shape, mpp, ys, xs)
    i, j = np.nonzero(section.tissue(ys, xs))
    nesting = make_nesting(seed, mixture, subtype.shape, mpp, min(size), ys[i], xs[j])
    return SampledLayout(height, width, section, nesting, glass, SPECK_UM2 / mpp**2)


@dataclass(frozen=True, slots=True)
class Split:
    """One region of class ``old`` becomes ``new`` where the field is above ``above``; ``share`` is the part that does."""

    old: int
    new: int
    share: float
    coarse: SmoothField
    fine: SmoothField
    mixing: float
    above: float = np.inf

    def values(self, ys: Floats, xs: Floats, warped: tuple[Floats, Floats]) -> Floats:
        """The field at points: its regions are warped, its fine islands are not."""
        values = self.coarse.points(*warped)
        return values + self.mixing * self.fine.points(ys, xs) if self.mixing else values


@dataclass(frozen=True, slots=True)
class Nesting:
    """The class of every place of the tissue."""

    base: int
    splits: tuple[Split, ...]
    warp_y: SmoothField
    warp_x: SmoothField
    warp_px: float

    def classes(self, ys: Floats, xs: Floats) -> NDArray[np.uint8]:
        """Class index at points: ``ys [n]``, ``xs [n]`` (slide px) -> uint8 ``[n]``."""
        classes = np.full(len(ys), self.base, np.uint8)
        if self.splits and len(ys):
            warped = self.warped(ys, xs)
            for split in self.splits:
                _apply(split, classes, ys, xs, warped)
        return classes

    def warped(self, ys: Floats, xs: Floats) -> tuple[Floats, Floats]:
        """The places whose regions the points belong to."""
        return (
            ys + self.warp_px * self.warp_y.points(ys, xs),
            xs + self.warp_px * self.warp_x.points(ys, xs),
        )


def make_nesting(
    seed: int, mixture: Mixture, shape: SectionShape, mpp: float, short_px: int, ys: Floats, xs: Floats
) -> Nesting:
    """Set the thresholds of all splits so that their shares come out on a sample of the tissue.

    Parameters
    ----------
    mpp : float
        um per slide px.
    short_px : int
        The slide's shorter side.
    ys, xs : ndarray
        ``[n]``, points of the tissue (slide px), evenly spread.
    """
    from dataclasses import replace

    region = min(shape.region_um / mpp, shape.region_share * short_px)
    warp = [SmoothField(seed, number, region, gain=0.4, octaves=2) for number in _WARP_FIELDS]
    base, plan = _plan(seed, mixture, shape, region, min(shape.mixing_um / mpp, region / 4))
    nesting = Nesting(base, (), warp[0], warp[1], _WARP * region)
    warped = nesting.warped(ys, xs)
    classes = np.full(len(ys), base, np.uint8)
    splits = []
    for split in plan:
        here = classes == split.old
        if here.any():
            values = split.values(ys[here], xs[here], (warped[0][here], warped[1][here]))
            split = replace(split, above=float(np.quantile(values, 1.0 - split.share)))
            _apply(split, classes, ys, xs, warped)
        splits.append(split)
    return replace(nesting, splits=tuple(splits))


def _plan(seed: int, mixture: Mixture, shape: SectionShape, region: float, fine: float) -> tuple[int, list[Split]]:
    """The ground of the tissue, and all splits from the outermost inwards."""
    total = {index: _with_inner(index, mixture) for index in mixture.shares}
    roots = sorted((i for i in total if i not in mixture.within), key=lambda i: (total[i], i))
    splits = []
    for old, new, share in [*_split_off(roots, total), *_inner(roots, mixture, total)]:
        size = region * min(1.0, max(0.3, (2.0 * total[new]) ** 0.5))
        number = _FIRST_FIELD + _FIELDS_PER_CLASS * new
        splits.append(
            Split(
                old,
                new,
                share,
                SmoothField(seed, number, size, gain=0.5, octaves=4),
                SmoothField(seed, number + 1, min(fine, size / 3), gain=0.5, octaves=3),
                shape.mixing,
            )
        )
    return roots[-1], splits


def _split_off(siblings: list[int], total: dict[int, float]) -> Iterator[tuple[int, int, float]]:
    """Split all but the last (the most frequent) off its ground: ``(old, new, share of what is left)``."""
    left = sum(total[i] for i in siblings)
    for index in siblings[:-1]:
        yield siblings[-1], index, total[index] / left
        left -= total[index]


def _inner(outer: list[int], mixture: Mixture, total: dict[int, float]) -> Iterator[tuple[int, int, float]]:
    """Split the classes within others off those, level by level."""
    for index in outer:
        children = sorted((c for c, parent in mixture.within.items() if parent == index), key=lambda c: (total[c], c))
        left = total[index]
        for child in children:
            yield index, child, total[child] / left
            left -= total[child]
        yield from _inner(children, mixture, total)


def _with_inner(index: int, mixture: Mixture) -> float:
    """Share of a class and of all that lies within it."""
    children = [child for child, outer in mixture.within.items() if outer == index]
    return mixture.shares[index] + sum(_with_inner(child, mixture) for child in children)


def _apply(split: Split, classes: NDArray[np.uint8], ys: Floats, xs: Floats, warped: tuple[Floats, Floats]) -> None:
    here = np.flatnonzero(classes == split.old)
    if len(here):
        values = split.values(ys[here], xs[here], (warped[0][here], warped[1][here]))
        classes[here[values > split.above]] = split.new
