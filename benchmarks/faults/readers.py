"""Which files of a run some task will still read: damage to any other could neither do harm nor be healed.

A finished pass keeps its last versions and nobody reads most of them again. What is read follows from the wavefront's rule
(the engine's wavefront): denoise 2 s + 1 of a chunk reads y[s] of its neighbours, assemble 2 s + 2 its own y[s] and the
partials of its neighbours, both the chunk's x0[s - 1]; the next pass, or decoding, reads y[S].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.damage import stored
from wsigen.base.geometry import ChunkGrid

Index = tuple[int, int]

_STATE = re.compile(r"(latents|history)/c/(\d+)/0/(\d+)/(\d+)")
_PARTIAL = re.compile(r"(partials)/c/(\d+)/(\d+)/(\d+)/0/0/0")
_CLASSES = re.compile(r"classes/c/(\d+)/(\d+)")
_IN_PASS = re.compile(r"work-[^/]+/state\.zarr/pass-(\d+)/(.+)")


@dataclass(frozen=True)
class Pass:
    """A pass's chunks that take part, and its steps."""

    grid: ChunkGrid
    active: frozenset[Index]
    steps: int


@dataclass
class _Progress:
    """Highest half-step of every chunk of a pass by its keys."""

    shape: Pass
    done: dict[Index, int] = field(default_factory=dict)

    def at(self, ij: Index) -> int:
        return self.done.get(ij, -1)

    def slowest_near(self, ij: Index) -> int:
        near = [self.at(n) for n in self.shape.grid.neighbourhood(ij) if n in self.shape.active]
        return min(near, default=2 * self.shape.steps)

    @property
    def starts_left(self) -> bool:
        return any(self.at(ij) < 0 for ij in self.shape.active)


def still_read(run_dir: Path, passes: list[Pass], blocks: int, stopped: bool) -> list[Path]:
    """Files that a task, the driver or the writer of the slide will read, in a fixed order.

    Parameters
    ----------
    run_dir:
        A run that is not finished; workers may still be writing.
    passes, blocks:
        The whole run's passes and number of blocks.
    stopped:
        Whether the driver is: the next one reads again what it keeps in memory (which chunks take part, the decoder's
        statistics).
    """
    files = {str(path.relative_to(run_dir)): path for path in stored(run_dir)}
    progress = [_Progress(shape) for shape in passes]
    for name in files:
        inside = _IN_PASS.fullmatch(name)
        key = (_STATE.fullmatch(inside[2]) or _PARTIAL.fullmatch(inside[2])) if inside else None
        if inside and key and key[1] != "history":
            part, ij = progress[int(inside[1])], (int(key[3]), int(key[4]))
            part.done[ij] = max(part.at(ij), 2 * int(key[2]) + (key[1] == "partials"))
    decoding = sum(name.endswith(".blk") for name in files) < blocks
    return [path for name, path in files.items() if _is_read(name, progress, decoding, stopped)]


def _is_read(name: str, progress: list[_Progress], decoding: bool, stopped: bool) -> bool:
    inside = _IN_PASS.fullmatch(name)
    if inside is None:
        return True  # a block: the slide is made of it
    number, key = int(inside[1]), inside[2]
    part = progress[number]
    last = number + 1 == len(progress)
    ends_read = decoding if last else progress[number + 1].starts_left
    if found := _STATE.fullmatch(key) or _PARTIAL.fullmatch(key):
        return _state_is_read(part, found[1], int(found[2]), (int(found[3]), int(found[4])), ends_read)
    if found := _CLASSES.fullmatch(key):  # the last pass's become the annotations
        return last or ends_read or part.slowest_near((int(found[1]), int(found[2]))) < 2 * part.shape.steps
    return stopped


def _state_is_read(part: _Progress, array: str, step: int, ij: Index, ends_read: bool) -> bool:
    if array == "history":
        return step + 1 < part.shape.steps and part.at(ij) < 2 * step + 4
    if array == "partials":
        return part.slowest_near(ij) < 2 * step + 2
    if step == part.shape.steps:
        return ends_read
    return part.slowest_near(ij) < 2 * step + 1 or part.at(ij) < 2 * step + 2


def sort_out(calm: Mapping[str, bytes], ended: Mapping[str, bytes], damaged: Mapping[str, bytes]) -> tuple[int, int]:
    """How many damaged files are whole again or gone as they should be, and how many lie there as the damage left them.

    Parameters
    ----------
    calm, ended:
        Files of the undisturbed and of the finished run.
    damaged:
        What damage left of each file.
    """
    unread = sum(calm.get(name) != ended.get(name) for name in damaged)
    return len(damaged) - unread, unread
