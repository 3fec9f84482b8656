"""PathUp's plan: the same lattice in every step, weights by distance from the centre."""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.base.geometry import Box
from wsigen.sampling.lattice import lattice_crops, lattice_starts
from wsigen.sampling.plan import Crop


@dataclass(frozen=True, slots=True)
class PathUpPlan:
    """Windows of ``side`` every ``side - overlap`` pixels (PathUp: 64 and 32), the last of a row or column snapped.

    Attributes
    ----------
    height, width:
        Canvas in latent pixels, each at least ``side``.
    side, overlap:
        Latent pixels; ``0 <= overlap < side``.
    taper:
        A name in ``lattice.TAPERS``; ``"pathup"`` is the paper's.
    """

    height: int
    width: int
    side: int = 64
    overlap: int = 32
    taper: str = "pathup"

    def crops(self, step: int, box: Box) -> list[Crop]:
        """Crops whose centre lies in ``box``; the same in every step."""
        stride = self.side - self.overlap
        ys = lattice_starts(self.height, self.side, stride)
        xs = lattice_starts(self.width, self.side, stride)
        return lattice_crops(ys, xs, self.side, self.taper, box)
