"""Class maps without specks: regions too small to be annotated go to a class beside them, wherever the map is read.

Noise cut at a threshold leaves single cells, which become annotations of a few pixels in QuPath. What a cell becomes depends on
the cells around it alone, up to a fixed distance. So any box can be cleaned by itself and equals the same box of the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.base.geometry import Box

Cells = NDArray[np.uint8]

MOST = 64
"""Cells of the largest region that is taken for a speck: bounds what is read around a box."""


def without_specks(read: Callable[[Box], Cells], box: Box, canvas: Box, largest: int) -> Cells:
    """Read a box of a class map and give its specks to a class beside them.

    Parameters
    ----------
    read : callable
        Classes of a box inside the canvas, uint8 ``(h, w)``.
    canvas : Box
        The whole map: regions end at its edge.
    largest : int
        Regions of at most so many cells (connected over edges) are specks.

    Returns
    -------
    ndarray
        uint8 ``(h, w)``. Where there is nothing but specks, they stay.

    Notes
    -----
    Whether a cell is in a region of at most n cells is known from those up to n cells away; and a cell of a speck takes the
    class of a neighbour that is in none, or has got one, in at most n rounds. So 2 n cells around the box are read.
    """
    n = min(max(1, largest), MOST)
    around = box.dilate(2 * n).intersect(canvas)
    cells = read(around)
    small = _small(cells, n)
    if small.any():
        cells = _filled(cells, small, n)
    return cells[box.relative_to(around).slices]


def _small(cells: Cells, largest: int) -> NDArray[np.bool_]:
    """Cells in regions of at most ``largest`` cells."""
    small = np.zeros(cells.shape, dtype=bool)
    for value in np.unique(cells):
        regions, count = ndimage.label(cells == value)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        tiny = sizes <= largest
        tiny[0] = False
        small |= tiny[regions]
    return small


def _filled(cells: Cells, unset: NDArray[np.bool_], rounds: int) -> Cells:
    """Give cells that are unset the class of a neighbour that is not, from the rim inwards."""
    out, unset = cells.copy(), unset.copy()
    for _ in range(rounds):
        before, waiting = out.copy(), unset.copy()
        for to, of in _NEIGHBOURS:
            taken = unset[to] & ~waiting[of]
            out[to][taken] = before[of][taken]
            unset[to][taken] = False
        if not unset.any():
            break
    return out


_FIRST, _LAST, _ALL = slice(1, None), slice(None, -1), slice(None)
_NEIGHBOURS = (
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_LAST, _ALL), (_FIRST, _ALL)),
    ((_ALL, _LAST), (_ALL, _FIRST)),
)
"""Cells, and their neighbours above, on the left, below and on the right: the first that is set is taken."""
