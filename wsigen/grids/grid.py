"""A grid: a coarse field of what each place of a slide looks like, and the one operation that every use of it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wsigen.base.geometry import Box
from wsigen.base.state import State
from wsigen.models.extractors.extractors import ON_THE_HUB
from wsigen.slide.resample import Taps, mean_taps, weighted

Array = NDArray[np.float32]

MOST_NUMBERS = 2**29
"""Numbers in a grid at most: mean colours of 13,000 x 13,000 cells, a slide of 107,000 px in cells of 8 px."""

MOST_CHANNELS = 8192

MOSTLY = 0.5
"""Share of a part's area that must be known for the part to be: the mean of less says little about it."""


@dataclass(frozen=True, slots=True)
class EncoderId:
    """Which encoder made a grid.

    Attributes
    ----------
    name : str
        E.g. ``mean-colour``.
    sha256 : str
        Of its weights; empty for encoders that have none, or where nobody said.
    """

    name: str
    sha256: str = ""

    def agrees(self, other: EncoderId) -> bool:
        """Whether both are the same encoder: by the hashes of their weights where both are known, else by name.

        A name may be an extractor's (``timm:hf-hub:MahmoodLab/uni``) or TRIDENT's (``uni_v1``).
        """
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self._network == other._network

    @property
    def _network(self) -> str:
        """Its name, whichever of the ways to load it is meant."""
        name = ON_THE_HUB.get(self.name, self.name)
        return name.removeprefix("timm:").removeprefix("transformers:").removeprefix("hf-hub:").removeprefix("hf_hub:")

    def __str__(self) -> str:
        return f"{self.name!r} (sha256 {self.sha256[:12]})" if self.sha256 else repr(self.name)


class GridFile(State):
    """What a grid's file says of itself.

    Attributes
    ----------
    encoder, encoder_sha256 : str
        See `grid.EncoderId`.
    cell_um : float
        Side of a cell, um.
    encoder_mpp : float or None
        um/px at which the encoder looked at the cells; None where it has no pixels of its own, or nobody said: patches of
        feature files, which an encoder resizes to its own side.
    width_um, height_um : float
        Size of the slide, um.
    source : str
        Name of the slide's file, for people.
    """

    format: Literal[1] = 1
    encoder: str
    encoder_sha256: str = ""
    cell_um: Annotated[float, Field(ge=0.05, lt=1e5)]
    encoder_mpp: Annotated[float | None, Field(gt=0, lt=1e3)] = None
    width_um: Annotated[float, Field(gt=0, lt=1e8)]
    height_um: Annotated[float, Field(gt=0, lt=1e8)]
    source: str = ""

    @property
    def made_by(self) -> EncoderId:
        """Which encoder made it."""
        return EncoderId(self.encoder, self.encoder_sha256)


@dataclass(frozen=True, eq=False, slots=True)
class Grid:
    """What each cell of a slide looks like. Cell (0, 0) begins at the slide's upper left corner.

    Attributes
    ----------
    values : array
        float16 or float32 ``(D, rows, cols)``, as the encoder gave them; a NumPy or a zarr array, of which only the windows
        that are asked for are read.
    known : array
        bool ``(rows, cols)``: whether anybody looked at the cell.
    cell_um : float
        Side of a cell in um.
    encoder : EncoderId
        What the numbers mean.
    origin_um : (float, float)
        Where windows count from, um (y, x): the corner of a part of the slide.
    """

    values: Any
    known: Any
    cell_um: float
    encoder: EncoderId
    origin_um: tuple[float, float] = (0.0, 0.0)

    def part(self, y_um: float, x_um: float) -> Grid:
        """The grid of the part of the slide that begins there."""
        return replace(self, origin_um=(self.origin_um[0] + y_um, self.origin_um[1] + x_um))

    def held(self, most_bytes: int) -> Grid:
        """The same with its cells in memory, if they take no more than so many bytes there: windows are read often."""
        if math.prod(self.values.shape) * self.values.dtype.itemsize > most_bytes:
            return self
        return replace(self, values=np.asarray(self.values[:]), known=np.asarray(self.known[:]))

    def window(self, box: Box, part_um: float, offset_um: tuple[float, float] = (0.0, 0.0)) -> tuple[Array, NDArray[np.bool_]]:
        """Area means of the cells under each part of a window.

        Parts may be larger or smaller than cells, and begin anywhere. What lies beyond the grid repeats its last cells. A part
        has the same bits in whatever window it is asked for.

        Parameters
        ----------
        box : Box
            The window, in parts: part (y, x) begins at ``y part_um, x part_um``.
        part_um : float
            Side of a part, um.
        offset_um : (float, float)
            Moves the window, um (y, x).

        Returns
        -------
        values, known : ndarray
            float32 ``(D, h, w)``, the mean of the known cells, 0 where the part is unknown; and bool ``(h, w)``, whether cells
            are known under at least half of the part.
        """
        factor = part_um / self.cell_um
        rows, cols = self.values.shape[1:]
        top, left = (origin + offset for origin, offset in zip(self.origin_um, offset_um, strict=True))
        down = mean_taps(box.y0, box.y1, factor, rows, top / self.cell_um)
        across = mean_taps(box.x0, box.x1, factor, cols, left / self.cell_um)
        there = (slice(*down.span), slice(*across.span))
        known = np.asarray(self.known[there])
        values = np.where(known, np.asarray(self.values[(slice(None), *there)], dtype=np.float32), np.float32(0))
        return known_means(values, known, down, across)


def standardised_cells(values: Array, known: NDArray[np.bool_]) -> Array:
    """Each cell of ``(D, h, w)`` standardised over its own D numbers, as ZoomLDM's loader does; unknown ones are 0.

    In float32: 1e-8 is 0 in float16. After the means over parts, not before.
    """
    centred = values - values.mean(axis=0)
    scaled = centred / (centred.std(axis=0, ddof=1) + np.float32(1e-8))
    return np.where(known, scaled, np.float32(0)).astype(np.float32)


def known_means(values: Array, known: NDArray[np.bool_], down: Taps, across: Taps) -> tuple[Array, NDArray[np.bool_]]:
    """Means over known cells ``(D, h, w)`` by the taps of both axes, and where enough is known; see `Grid.window`."""
    layers = np.concatenate([values, known[None].astype(np.float32)]).transpose(1, 2, 0)
    means = weighted(layers, down, across).transpose(2, 0, 1)
    share = means[-1]
    enough = share >= MOSTLY - 1e-6
    result = np.where(enough, means[:-1] / np.maximum(share, np.float32(1e-6)), np.float32(0))
    return np.ascontiguousarray(result, dtype=np.float32), enough
