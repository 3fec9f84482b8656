"""Crops on a lattice, and the tapers that weight them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.sampling.plan import Crop

Array = NDArray[np.float32]


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
"""Unnormalised weights ``[p, p]`` by name, all above 0: ``linear`` is a tent, ``gaussian`` has sigma 0.4 half sides, ``flat``
is plain averaging (PathUp without its weight map)."""


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
    """Weight of the crop at (0, 0) among crops at all offsets ``dys x dxs`` (which contain 0)."""
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
    found = []
    for y in ys:
        if not box.y0 <= y + half < box.y1:
            continue
        dys = tuple(other - y for other in ys if abs(other - y) < side)
        for x in xs:
            if not box.x0 <= x + half < box.x1:
                continue
            dxs = tuple(other - x for other in xs if abs(other - x) < side)
            found.append(Crop(Box(y, x, y + side, x + side), _normalised(taper, side, dys, dxs)))
    return found
