"""Crops of the lattice show no tissue twice."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipelines.her2st.crops import LEAST_TISSUE, lattice_places
from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box

GLASS = 0


@dataclass(frozen=True)
class Section:
    """A canvas whose left part is tissue (class 1), with a stripe that nobody labelled."""

    size: tuple[int, int]
    tissue_px: int

    def canvas(self, mpp: float) -> tuple[int, int]:
        return self.size

    def class_map(self, box: Box, mpp: float) -> np.ndarray:
        x = np.arange(box.x0, box.x1, 8)
        row = np.where(x < self.tissue_px, 1, GLASS)
        row[(x >= 16) & (x < 24)] = UNKNOWN
        return np.tile(row.astype(np.uint8), ((box.y1 - box.y0) // 8, 1))


def test_places_of_the_lattice_lie_apart_on_tissue_and_are_all_there_are() -> None:
    one, other = Section((200, 264), 150), Section((64, 64), 64)
    found = lattice_places([one, other], 0.7, 64, GLASS)
    # three rows; columns 0 and 64 are tissue, of that at 128 a third is
    assert [(b.y0, b.x0) for m, b in found if m is one] == [(y, x) for y in (0, 64, 128) for x in (0, 64)]
    assert [(b.y0, b.x0) for m, b in found if m is other] == [(0, 0)]
    for (m, a), (n, b) in combinations(found, 2):
        assert m is not n or a.y1 <= b.y0 or b.y1 <= a.y0 or a.x1 <= b.x0 or b.x1 <= a.x0
    for m, box in found:
        assert np.isin(m.class_map(box, 0.7), (GLASS, UNKNOWN)).mean() <= 1 - LEAST_TISSUE
