"""The shifted plan, wsigen's own: a lattice of small overlap whose offset is drawn anew for every step.

Little overlap costs few model calls (1.31x the canvas at side 64, overlap 8; PathUp's lattice 4x); as borders lie
elsewhere in every step, none of them builds up into a seam. Except those one window off the canvas's edges: windows that would
leave the canvas are snapped to its edges, so that their inner borders stay (the seam score has them as a group of its own).
"""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.base.geometry import Box
from wsigen.base.noise import offset
from wsigen.sampling.plan import Crop, lattice_crops, lattice_starts


@dataclass(frozen=True, slots=True)
class ShiftedPlan:
    """Windows of ``side`` every ``side - overlap`` pixels from a random offset.

    Attributes
    ----------
    height, width : int
        Canvas, latent px; each at least ``side``.
    seed, level : int
        Seed of the run and index of the pass: they decide the offsets.
    side, overlap : int
        Latent px; ``0 <= overlap < side``.
    taper : str
        A name in `plan.TAPERS`.
    align : int
        Offsets are multiples of it; so is ``side - overlap``.
    """

    height: int
    width: int
    seed: int
    level: int = 0
    side: int = 64
    overlap: int = 8
    taper: str = "linear"
    align: int = 1

    def crops(self, step: int, box: Box) -> list[Crop]:
        """Crops of ``step`` whose centre lies in ``box``, row-major."""
        stride = self.side - self.overlap
        dy, dx = (shift - shift % self.align for shift in offset(self.seed, self.level, step, stride))
        ys = lattice_starts(self.height, self.side, stride, dy)
        xs = lattice_starts(self.width, self.side, stride, dx)
        return lattice_crops(ys, xs, self.side, self.taper, box)
