"""PathUp's plan: the same lattice in every step, weights by distance from the centre (PathUp eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.base.geometry import Box
from wsigen.sampling.plan import Crop, lattice_crops, lattice_starts


@dataclass(frozen=True, slots=True)
class PathUpPlan:
    """Windows of ``side`` every ``side - overlap`` pixels (PathUp: 64 and 32), the last of a row or column snapped.

    Attributes
    ----------
    height, width : int
        Canvas, latent px; each at least ``side``.
    side, overlap : int
        Latent px; ``0 <= overlap < side``.
    taper : str
        A name in `plan.TAPERS`; ``"pathup"`` is the paper's.
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
