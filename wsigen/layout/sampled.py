"""`SampledLayout`: a random slide layout drawn by rule, not learned from slides.

This is a **procedural layout sampler**: smooth noise fields cut at thresholds. Its pieces, holes, cracks and nested
regions look like those of a section and have the asked shares; beyond that it knows nothing of anatomy or disease.
Any box can be drawn alone, by any process, and equals the whole: (seed, size, um/px, class table, subtype) decide
every cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.geometry import Box
from wsigen.layout.layout import StripLayout
from wsigen.layout.nesting import Nesting, make_nesting
from wsigen.layout.section import Section, make_section
from wsigen.layout.subtypes import Subtype, mixture_of

SAMPLE = 400
"""Places per side at which the thresholds are read: 160,000 on a slide of any size, an error of areas below 0.2 %."""


@dataclass(frozen=True, slots=True)
class SampledLayout(StripLayout):
    """A layout made of smooth random fields; see `Layout`.

    Attributes
    ----------
    height, width:
        Of the slide (px).
    section:
        Where there is tissue.
    nesting:
        Which class it is.
    glass:
        Class index of bare glass.
    """

    height: int
    width: int
    section: Section
    nesting: Nesting
    glass: int

    strip_cells = 2**19  # about 250 bytes a cell

    def classes(self, box: Box, cell_px: int) -> NDArray[np.uint8]:
        """Draw the tissue and, in it, the classes (`StripLayout.classes`)."""
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
    seed:
        0 .. 2**64 - 1.
    size:
        ``(height, width)`` of the slide (px).
    glass:
        Index of the class around the tissue.
    name, subtype:
        Shares and shapes.
    mpp:
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
    return SampledLayout(height, width, section, nesting, glass)
