"""What a sampling mode is: which windows a step runs, and how their predictions are weighted; windows on a lattice.

Both papers' samplers are one equation. With crops k of side p and the step's estimate x0_k on crop k::

    x0(i) = sum over k of  w_k(i) x0_k(i)        with  sum over k of w_k(i) = 1  at every pixel i

(PathUp eq. 6-7 with weights by distance, DiffInfinite algorithm 1 with weights 0 and 1). A mode is a ``CropPlan``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Crop:
    """A square window of the latent canvas and its share of every pixel in it.

    Attributes
    ----------
    box : Box
        Inside the canvas, side p, latent px.
    weight : ndarray
        float32 ``(p, p)`` in [0, 1]; over all crops of a step the weights of a pixel add up to 1.
    """

    box: Box
    weight: Array


class CropPlan(Protocol):
    """The crops of every step; a pure function of its fields, so that every worker gets the same ones."""

    @property
    def side(self) -> int:
        """Crop side p in latent px (even)."""
        ...

    def crops(self, step: int, box: Box) -> list[Crop]:
        """Every crop of ``step`` whose centre lies in ``box``, in a fixed order."""
        ...


def centre(box: Box) -> tuple[int, int]:
    """The pixel that decides which chunk a crop belongs to."""
    return (box.y0 + box.y1) // 2, (box.x0 + box.x1) // 2


def _axis(side: int) -> NDArray[np.float64]:
    """Distance of every pixel centre from the middle, over the half side: in (0, 1)."""
    return np.abs(np.arange(side) + 0.5 - side / 2.0) / (side / 2.0)


def _pathup(side: int) -> NDArray[np.float64]:
    """``w = 1 - max(|p - p'|, |q - q'|) / L``, in [0.508, 0.992] for L = 64.

    PathUp eq. 6 as printed gives 0 at the centre and at most 0.5, against its own text ("by distance from the centre",
    "[0.5, 1]"); this is the reading that fits the text.
    """
    d = _axis(side)
    return 1.0 - np.maximum(d[:, None], d[None, :]) / 2.0


def _separable(profile: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[int], NDArray[np.float64]]:
    def taper(side: int) -> NDArray[np.float64]:
        w = profile(_axis(side))
        return w[:, None] * w[None, :]

    return taper


TAPERS: dict[str, Callable[[int], NDArray[np.float64]]] = {
    "pathup": _pathup,
    "flat": lambda side: np.ones((side, side)),
    "linear": _separable(lambda d: 1.0 - d),
    "hann": _separable(lambda d: np.cos(np.pi * d / 2.0) ** 2),
    "gaussian": _separable(lambda d: np.exp(-0.5 * (d / 0.4) ** 2)),
}
"""Weights ``(p, p)`` by name, not yet normalised and all above 0: ``linear`` is a tent, ``gaussian`` has sigma 0.4 half sides,
``flat`` is plain averaging (MultiDiffusion, Bar-Tal et al. 2023)."""


def lattice_starts(extent: int, side: int, stride: int, shift: int = 0) -> list[int]:
    """First pixels of the windows along one axis.

    Windows begin at ``shift + k stride``; those that would leave ``[0, extent)`` are snapped to its edges, so that every
    pixel is covered for any extent >= side.
    """
    last = extent - side
    first = shift - stride if shift > 0 else 0
    return sorted({min(max(start, 0), last) for start in range(first, last + stride, stride)})


@lru_cache(maxsize=4096)
def _normalised(taper: str, side: int, dys: tuple[int, ...], dxs: tuple[int, ...]) -> Array:
    """Weight ``(side, side)`` of the crop at (0, 0) among crops at all offsets ``dys x dxs`` (which contain 0)."""
    raw = TAPERS[taper](side)
    total = np.zeros_like(raw)
    own = Box(0, 0, side, side)
    for dy in dys:
        for dx in dxs:
            common = own.intersect(own.shift(dy, dx))
            total[common.slices] += raw[common.shift(-dy, -dx).slices]
    weight = (raw / total).astype(np.float32)
    weight.setflags(write=False)
    return weight


def lattice_crops(ys: Sequence[int], xs: Sequence[int], side: int, taper: str, box: Box) -> list[Crop]:
    """Crops of the lattice ``ys x xs`` whose centre lies in ``box``, row-major, with weights normalised over all crops."""
    half = side // 2
    crops = []
    for y in ys:
        if not box.y0 <= y + half < box.y1:
            continue
        dys = tuple(other - y for other in ys if abs(other - y) < side)
        for x in xs:
            if not box.x0 <= x + half < box.x1:
                continue
            dxs = tuple(other - x for other in xs if abs(other - x) < side)
            crops.append(Crop(Box(y, x, y + side, x + side), _normalised(taper, side, dys, dxs)))
    return crops
