"""What the tasks of a pass read from the store and write to it, by arithmetic.

A denoise task reads y[s] of its chunk and the edges of those neighbours that its crops reach, and writes a partial; an assemble
task reads its own partial, the edges of its neighbours', and its own state, and writes y[s + 1]. A history is written, and read
twice. Of an edge whole tiles are read (``geometry.tile_side``), as each has one checksum: a step moves about 7 times a chunk of
512 latent px, and 19 times a chunk of a single tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.base.geometry import tile_side
from wsigen.sampling.passes import PassPlan

Index = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a task reads and writes, and in how many requests that wait for each other; means where crops move.

    A whole chunk is one request. A part of one takes one for where its tiles lie and then one for every tile, as zarr (3.1)
    fetches tiles one after the other: an edge of a chunk of 512 latent px 1 + 4, a corner 1 + 1. A chunk is written with one.
    Chunks are counted one after the other, as they are read from a file system; in object stores a task reads them together.
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

    def __mul__(self, times: float) -> Traffic:
        """So many times."""
        return Traffic(self.read * times, self.reads * times, self.written * times, self.writes * times)


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
        """Bytes of a chunk of latents; one at the canvas's edge counts as a whole one, and the checksum is left out."""
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
        kept = Traffic(self.state, 1) * (self.history and not first)
        return self._read(self.plan.chunk, self.state, self.reached(ij)) + kept + Traffic(written=self.partial, writes=1)

    def assemble(self, ij: Index, first: bool = False) -> Traffic:
        """An even half-step above 0."""
        states, made = 1 + (self.history and not first), 1 + self.history
        sums = self._read(self.plan.chunk + self.plan.side, self.partial, self.near(ij))
        return sums + Traffic(states * self.state, states, made * self.state, made)

    def _read(self, side: int, size: int, counts: tuple[float, float, float]) -> Traffic:
        """Reading so many middles, edges and corners of arrays that are ``side`` wide and hold ``size`` bytes.

        The middle is what of the array lies in its own chunk (partials reach beyond); edges are half a crop deep.
        """
        tile, beyond = tile_side(side), (side - self.plan.chunk) // 2
        middle = -(-(side - beyond) // tile) - beyond // tile
        deep = -(-(self.plan.side // 2) // tile)
        found = Traffic()
        for count, tiles in zip(counts, (middle * middle, deep * middle, deep * deep), strict=True):
            every = (side // tile) ** 2
            found += Traffic(size * tiles / every, part_requests(tiles, every)) * count
        return found

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
            sums += step * (self.plan.steps - 1)
        return sums


def part_requests(tiles: int, every: int) -> int:
    """Requests that read ``tiles`` of the ``every`` tiles of a chunk (see `Traffic`)."""
    return 1 if tiles >= every else 1 + tiles
