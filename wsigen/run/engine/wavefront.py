"""Which task may run, and which key may go: the only scheduling rule.

Half-steps of a chunk: 0 writes y[0]; 2 s + 1 (denoise) writes the partial of step s; 2 s + 2 (assemble) writes y[s + 1].

**Rule: a chunk may run half-step h if and only if all its active 3x3 neighbours have finished h - 1.** No barrier;
neighbours differ by at most one half-step.

A key is deleted once nobody can need it, not even to make another one again: y[s] is read by the neighbours' denoise and the
chunk's own assemble, a partial by the neighbours' assemble; and as long as anybody may read a key, what it was made from stays.
So at most three versions of a chunk live at any time, and any one of them can be lost or damaged without harm.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wsigen.base.geometry import ChunkGrid

Index = tuple[int, int]
HalfStep = tuple[int, Index]


KEPT = 4
"""Half-steps behind the slowest neighbour from which on keys are kept."""


@dataclass(slots=True)
class _Chunk:
    done: int = -1
    """Highest finished half-step."""
    swept: int = -1
    """All keys up to this half-step are gone."""


class Wavefront:
    """Progress of all active chunks of one pass: one small integer each.

    Parameters
    ----------
    grid : ChunkGrid
        Chunks of the canvas.
    active : iterable of tuple of int
        Chunks that take part; all others are glass and count as finished.
    steps : int
        Transitions S; the last half-step is 2 S.
    record : mapping of tuple of int to set of int or None
        Half-steps whose keys exist, by chunk (``PassState.record``), to go on from; inactive chunks are ignored.
    """

    def __init__(
        self,
        grid: ChunkGrid,
        active: Iterable[Index],
        steps: int,
        record: Mapping[Index, set[int]] | None = None,
    ) -> None:
        self.grid = grid
        self.last = 2 * steps
        self._chunks = {ij: _Chunk(done=max((record or {}).get(ij, {-1}))) for ij in active}
        self._heap: list[HalfStep] = []
        self._queued: set[HalfStep] = set()
        for ij in self._chunks:
            self._offer(ij)

    @property
    def finished(self) -> bool:
        """Whether every active chunk is at the last half-step."""
        return all(chunk.done == self.last for chunk in self._chunks.values())

    @property
    def total(self) -> int:
        """Half-steps of the whole pass."""
        return len(self._chunks) * (self.last + 1)

    @property
    def completed(self) -> int:
        """Half-steps finished so far."""
        return sum(chunk.done + 1 for chunk in self._chunks.values())

    def progress(self) -> dict[Index, int]:
        """Highest finished half-step of every active chunk; -1 if none."""
        return {ij: chunk.done for ij, chunk in self._chunks.items()}

    def next(self) -> HalfStep | None:
        """Take the ready task of the lowest half-step, or None if all ready ones are taken."""
        while self._heap:
            h, ij = heapq.heappop(self._heap)
            if (h, ij) in self._queued and self._chunks[ij].done == h - 1 and self._ready(h, ij):
                return h, ij
            self._queued.discard((h, ij))
        return None

    def finish(self, h: int, ij: Index) -> list[HalfStep]:
        """Record that a half-step is done. Returns the keys that may be deleted now.

        A late duplicate (a half-step already recorded) changes nothing.
        """
        self._queued.discard((h, ij))
        chunk = self._chunks[ij]
        if h != chunk.done + 1:
            return []
        chunk.done = h
        for neighbour in self._neighbours(ij):
            self._offer(neighbour)
        return [key for neighbour in self._neighbours(ij) for key in self._sweep(neighbour)]

    def reached(self, h: int, ij: Index) -> bool:
        """Whether a half-step is recorded as done."""
        return ij in self._chunks and self._chunks[ij].done >= h

    def retry(self, h: int, ij: Index) -> None:
        """Offer a task again after its worker was lost."""
        self._queued.discard((h, ij))
        self._offer(ij)

    def roll_back(self, h: int, ij: Index) -> bool:
        """A key was damaged: let chunk ``ij`` make half-step h again, if all it reads is still there.

        Returns False if an input was deleted already; then nothing changes.
        """
        chunk = self._chunks.get(ij)
        if chunk is None or chunk.done not in (h, h + 1):
            return False
        if h > 0 and not self._inputs_live(h, ij):
            return False
        chunk.done = h - 1
        self._offer(ij)
        return True

    def leftovers(self, record: Mapping[Index, set[int]]) -> list[HalfStep]:
        """Keys of ``record`` that no task will read again."""
        unread = []
        for ij, steps in record.items():
            if ij in self._chunks:
                dead = self._dead_up_to(ij)
                unread += [(h, ij) for h in sorted(steps) if h <= dead]
                self._chunks[ij].swept = dead
            else:
                unread += [(h, ij) for h in sorted(steps)]
        return unread

    # -- inside --------------------------------------------------------------------------------------------------------

    def _neighbours(self, ij: Index) -> list[Index]:
        return [n for n in self.grid.neighbourhood(ij) if n in self._chunks]

    def _offer(self, ij: Index) -> None:
        h = self._chunks[ij].done + 1
        if h > self.last or (h, ij) in self._queued:
            return
        if self._ready(h, ij):
            self._queued.add((h, ij))
            heapq.heappush(self._heap, (h, ij))

    def _ready(self, h: int, ij: Index) -> bool:
        return all(self._chunks[n].done >= h - 1 for n in self._neighbours(ij))

    def _dead_up_to(self, ij: Index) -> int:
        """All keys of a chunk up to this half-step may go; the last state is kept for the decoder.

        A key h is read until all neighbours, and for a state the chunk itself, are at h + 1 or h + 2. What it was made from
        (h - 1 of all neighbours, h - 2 of the chunk) stays until then: nobody's keys above the lowest half-step of the
        neighbourhood less 4 go. States and partials go in pairs.
        """
        dead = min(self._chunks[n].done for n in self._neighbours(ij)) - KEPT
        return max(-1, dead if dead % 2 else dead - 1)

    def _sweep(self, ij: Index) -> list[HalfStep]:
        chunk = self._chunks[ij]
        dead = self._dead_up_to(ij)
        keys = [(h, ij) for h in range(chunk.swept + 1, dead + 1)]
        chunk.swept = max(chunk.swept, dead)
        return keys

    def _inputs_live(self, h: int, ij: Index) -> bool:
        """Whether what half-step h of a chunk reads was not deleted."""
        near = all(self._chunks[n].swept < h - 1 for n in self._neighbours(ij))
        return near and (h % 2 == 1 or self._chunks[ij].swept < h - 2)
