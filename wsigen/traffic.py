"""What the tasks of a pass read from the store and write to it, by arithmetic.

A denoise task reads y[s] of its chunk and the edges of those neighbours that its crops reach, and writes a partial; an assemble
task reads its own partial, the edges of its neighbours', and its own state, and writes y[s + 1]. A history is written, and read
twice. Of an edge whole tiles are read (``geometry.tile_side``), as each has one checksum: a step moves about 7 times a chunk of
512 latent px, and 19 times a chunk of a single tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.geometry import Box, tile_side
from wsigen.layout.layout import Layout
from wsigen.sampling.multiscale import PassPlan

Index = tuple[int, int]

CELL = 8
"""Latent px of a cell of the class map from which it is told where tissue is."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a task reads and writes, and in how many requests that wait for each other; means where crops move.

    A part of a chunk takes two: where its tiles lie, then the tiles, all at once.
    """

    read: float = 0.0
    reads: float = 0.0
    written: float = 0.0
    writes: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        """Both."""
        return Traffic(
            self.read + other.read, self.reads + other.reads, self.written + other.written, self.writes + other.writes
        )


@dataclass(frozen=True, slots=True)
class PassTraffic:
    """The traffic of a pass's tasks.

    Attributes
    ----------
    plan, active:
        The pass, and its chunks that take part.
    channels:
        Of the latents.
    history:
        Whether the sampler keeps its last estimate.
    """

    plan: PassPlan
    active: frozenset[Index]
    channels: int
    history: bool

    @property
    def state(self) -> int:
        """Bytes of a chunk of latents; one at the canvas's edge is as large, and the checksum is left out."""
        return self.plan.chunk**2 * self.channels * 4

    @property
    def partial(self) -> int:
        """Bytes of the weighted sum of a chunk's crops."""
        return (self.plan.chunk + self.plan.side) ** 2 * self.channels * 4

    def start(self) -> Traffic:
        """Half-step 0 from noise."""
        return Traffic(0, 0, self.state, 1)

    def denoise(self, ij: Index, first: bool = False) -> Traffic:
        """An odd half-step; the first has no history."""
        kept = self.history and not first
        whole, edges, corners = self.reached(ij)
        share, requests = self._edge(self.plan.chunk)
        read = self.state * (whole + edges * share + corners * share**2 + kept)
        return Traffic(read, whole + requests * (edges + corners) + kept, self.partial, 1)

    def assemble(self, ij: Index, first: bool = False) -> Traffic:
        """An even half-step above 0."""
        states, made = 1 + (self.history and not first), 1 + self.history
        whole, edges, corners = self.near(ij)
        share, requests = self._edge(self.plan.chunk + self.plan.side)
        read = self.partial * (whole + edges * share + corners * share**2) + states * self.state
        return Traffic(read, whole + requests * (edges + corners) + states, made * self.state, made)

    def _edge(self, side: int) -> tuple[float, int]:
        """Share of what is ``side`` wide that is read for an edge half a crop wide, and requests."""
        tile = tile_side(side)
        depth = -(-(self.plan.side // 2) // tile) * tile
        return (1.0, 1) if depth >= side else (depth / side, 2)

    def near(self, ij: Index) -> tuple[int, int, int]:
        """How many of these are active: the chunk, its four neighbours by an edge, its four by a corner."""
        found = [0, 0, 0]
        for n in self.plan.grid.neighbourhood(ij):
            found[(n[0] != ij[0]) + (n[1] != ij[1])] += n in self.active
        return found[0], found[1], found[2]

    def reached(self, ij: Index) -> tuple[float, float, float]:
        """How many of them crops centred in the chunk reach.

        The last crop of a row lies with its centre anywhere in the last stride of the chunk, as the lattice moves from step to
        step or does not fit the chunks, and reaches the next chunk from the last half crop.
        """
        plan = self.plan
        share = 1.0 if plan.mode == "random-patch" else min(1.0, plan.side / 2 / max(1, plan.side - plan.overlap))
        whole, edges, corners = self.near(ij)
        return whole, edges * share, corners * share**2

    def total(self) -> Traffic:
        """Of all tasks of the pass, half-steps 0 that start from noise."""
        sums = Traffic()
        for ij in self.active:
            sums += self.start() + self.denoise(ij, True) + self.assemble(ij, True)
            step = self.denoise(ij) + self.assemble(ij)
            more = self.plan.steps - 1
            sums += Traffic(more * step.read, more * step.reads, more * step.written, more * step.writes)
        return sums


def active_chunks(layout: Layout, plan: PassPlan, glass: int | None) -> frozenset[Index]:
    """Chunks with tissue in them or within half a crop of them, from a coarse class map."""
    if glass is None:
        return frozenset(plan.grid)
    cell = max(1, min(CELL, plan.side // 8))
    canvas = Box(0, 0, -(-plan.height // cell), -(-plan.width // cell))
    tissue = layout.class_map(canvas, cell * plan.cell_px) != glass
    found = set()
    for ij in plan.grid:
        reach = plan.grid.box(ij).dilate(plan.side // 2)
        cells = Box(reach.y0 // cell, reach.x0 // cell, -(-reach.y1 // cell), -(-reach.x1 // cell)).intersect(canvas)
        if tissue[cells.slices].any():
            found.add(ij)
    return frozenset(found)
