"""Clean a drawn class map: borders that cannot be, and regions too small to mean anything (DiffInfinite, appendix F).

The paper erases artefacts along boundaries and pools with a minimum, both to "unknown". A minimum over class indices
makes the lower class grow, so regions are here measured instead; and which classes may touch is not read from the
distance of their indices but given.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN

Cells = NDArray[np.uint8]
Pairs = NDArray[np.bool_]


def clean(cells: Cells, adjacent: Pairs, smallest: int) -> Cells:
    """Clean a class map.

    Parameters
    ----------
    cells : ndarray
        uint8 ``[h, w]``: class indices or ``UNKNOWN``.
    adjacent : ndarray
        bool ``[K, K]``, symmetric: which classes may touch.
    smallest : int
        Regions of fewer cells (connected over edges) are removed.

    Returns
    -------
    A new map of the same shape.
    """
    return remove_tiny(unknown_borders(cells, adjacent), smallest)


def unknown_borders(cells: Cells, adjacent: Pairs) -> Cells:
    """Make both cells unknown wherever classes touch over an edge that are not adjacent."""
    allowed = np.ones((256, 256), dtype=bool)
    allowed[: len(adjacent), : len(adjacent)] = adjacent | np.eye(len(adjacent), dtype=bool)
    out = cells.copy()
    across = ~allowed[cells[:, :-1], cells[:, 1:]]
    down = ~allowed[cells[:-1], cells[1:]]
    out[:, :-1][across] = UNKNOWN
    out[:, 1:][across] = UNKNOWN
    out[:-1][down] = UNKNOWN
    out[1:][down] = UNKNOWN
    return out


def remove_tiny(cells: Cells, smallest: int) -> Cells:
    """Give every region of fewer than ``smallest`` cells to the class that surrounds most of it.

    Only classes of regions that stay count; a region without such a neighbour becomes unknown. Unknown regions stay.
    """
    from scipy import ndimage

    tiny = np.zeros(cells.shape, dtype=bool)
    labels = np.zeros(cells.shape, dtype=np.int64)
    for index in np.unique(cells):
        if index == UNKNOWN:
            continue
        regions, count = ndimage.label(cells == index)
        small = np.bincount(regions.ravel(), minlength=count + 1) < smallest
        small[0] = False
        here = small[regions]
        labels[here] = regions[here] + labels.max()
        tiny |= here
    out = cells.copy()
    stays = ~tiny & (cells != UNKNOWN)
    for label in np.unique(labels[tiny]):
        region = labels == label
        rim = ndimage.binary_dilation(region) & stays
        out[region] = np.bincount(cells[rim]).argmax() if rim.any() else UNKNOWN
    return out


def touching(maps: Iterable[Cells], classes: int) -> Pairs:
    """Which of so many classes touch over an edge anywhere in the maps: bool ``[classes, classes]``, symmetric."""
    touch = np.eye(256, dtype=bool)
    for cells in maps:
        for a, b in ((cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])):
            touch[a, b] = True
            touch[b, a] = True
    return touch[:classes, :classes]
