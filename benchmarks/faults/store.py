"""A run's store from outside, by the names of its files alone: how far it is, what will still be read, and bytes that go wrong.

Damage to a file that nobody will read could neither do harm nor be healed. What is read follows from the wavefront's rule
(`wsigen.run.engine.wavefront`): denoise 2 s + 1 of a chunk reads y[s] of its neighbours, assemble 2 s + 2 its own y[s] and the
partials of its neighbours, both the chunk's x0[s - 1]; the next pass, or decoding, reads y[S].
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.geometry import ChunkGrid
from wsigen.storage.files import target_of_leftover

Index = tuple[int, int]

_KEY = re.compile(r"work-[^/]+/state\.zarr/pass-(\d+)/(\w+)/c/([\d/]+)")

_PLACES = {"latents": (0, 2, 3), "history": (0, 2, 3), "partials": (0, 1, 2), "known": (0, 2, 3)}
"""Where step and chunk stand in the keys of an array."""


@dataclass(frozen=True, slots=True)
class _Key:
    """What a file of a pass holds: its array, step and chunk; no array: what is read once as a driver starts."""

    number: int
    array: str = ""
    step: int = 0
    ij: Index = (0, 0)


def _key(name: str) -> _Key | None:
    """None of a block."""
    inside = _KEY.fullmatch(name)
    if inside is None:
        return None
    array, numbers = inside[2], [int(text) for text in inside[3].split("/")]
    if array == "classes":
        return _Key(int(inside[1]), array, 0, (numbers[0], numbers[1]))
    if array not in _PLACES:
        return _Key(int(inside[1]))
    step, i, j = (numbers[place] for place in _PLACES[array])
    return _Key(int(inside[1]), array, step, (i, j))


def stored(run_dir: Path) -> list[Path]:
    """Chunks and blocks that are there now, in a fixed order."""
    chunks, blocks = [], []
    for work in run_dir.glob("work-*"):
        state = work / "state.zarr"
        chunks += [p for p in _walk(state) if "c" in p.relative_to(state).parts and target_of_leftover(p.name) is None]
        blocks += [p for p in _walk(work / "spool") if p.suffix == ".blk"]
    return sorted([*chunks, *blocks])


def _walk(folder: Path) -> list[Path]:
    """Files below a folder in which others delete and write."""
    return [Path(inner, name) for inner, _, names in os.walk(folder) for name in names]


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file of a run's state and spool."""
    files = (p for folder in sorted(run_dir.glob("work-*")) for p in sorted(folder.rglob("*")))
    return {str(p.relative_to(run_dir)): p.read_bytes() for p in files if p.is_file()}


def half_steps(run_dir: Path) -> int:
    """Half-steps that all chunks have made, over all passes, and encoded blocks."""
    names = [str(path.relative_to(run_dir)) for path in stored(run_dir)]
    made = sum(1 + half_step for chunks in _reached(names).values() for half_step in chunks.values())
    return made + sum(name.endswith(".blk") for name in names)


def _reached(names: Iterable[str]) -> dict[int, dict[Index, int]]:
    """Highest half-step of every chunk of every pass by its keys."""
    found: dict[int, dict[Index, int]] = {}
    for key in map(_key, names):
        if key and key.array in ("latents", "partials"):
            chunks = found.setdefault(key.number, {})
            chunks[key.ij] = max(chunks.get(key.ij, 0), 2 * key.step + (key.array == "partials"))
    return found


@dataclass(frozen=True)
class Pass:
    """A pass's chunks that take part, and its steps."""

    grid: ChunkGrid
    active: frozenset[Index]
    steps: int


@dataclass(frozen=True)
class _Progress:
    """How far the chunks of a pass are."""

    shape: Pass
    done: Mapping[Index, int]

    def at(self, ij: Index) -> int:
        return self.done.get(ij, -1)

    def slowest_near(self, ij: Index) -> int:
        near = [self.at(n) for n in self.shape.grid.neighbourhood(ij) if n in self.shape.active]
        return min(near, default=2 * self.shape.steps)

    def reads(self, key: _Key, ends_read: bool) -> bool:
        """Whether a task of this pass will read a key of its state; ``ends_read``: whether any other will read its y[S]."""
        step, ij, steps = key.step, key.ij, self.shape.steps
        if key.array == "known":  # its own chunk reads it at every step; who reads others' cannot be seen from their names
            return ij in self.shape.active and self.at(ij) < 2 * steps
        if key.array == "history":
            return step + 1 < steps and self.at(ij) < 2 * step + 4
        if key.array == "partials":
            return self.slowest_near(ij) < 2 * step + 2
        if step == steps:
            return ends_read
        return self.slowest_near(ij) < 2 * step + 1 or self.at(ij) < 2 * step + 2


def still_read(run_dir: Path, passes: list[Pass], blocks: int, stopped: bool) -> list[Path]:
    """Files that a task, the driver or the writer of the slide will read, in a fixed order.

    Parameters
    ----------
    run_dir : a run that is not finished; workers may still be writing
    passes, blocks : the whole run's passes and number of blocks
    stopped : whether the driver is: the next one reads again what it keeps in memory (which chunks take part, the decoder's
        statistics)
    """
    files = {str(path.relative_to(run_dir)): path for path in stored(run_dir)}
    reached = _reached(files)
    progress = [_Progress(shape, reached.get(number, {})) for number, shape in enumerate(passes)]
    decoding = sum(name.endswith(".blk") for name in files) < blocks

    def is_read(key: _Key | None) -> bool:
        if key is None:
            return True  # a block: the slide is made of it
        here, last = progress[key.number], key.number + 1 == len(progress)
        following = progress[-1 if last else key.number + 1]
        ends_read = decoding if last else any(following.at(ij) < 0 for ij in following.shape.active)
        if key.array == "classes":  # the last pass's become the annotations
            return last or ends_read or here.slowest_near(key.ij) < 2 * here.shape.steps
        return here.reads(key, ends_read) if key.array else stopped

    return [path for name, path in files.items() if is_read(_key(name))]


def damage(files: list[Path], chance: random.Random, truncate: bool) -> Path | None:
    """Cut off or flip something in one of some files; returns it, or None if there was none to harm."""
    for path in chance.sample(files, len(files)):
        try:
            size = path.stat().st_size
            with path.open("r+b") as file:
                if truncate:
                    file.truncate(chance.randrange(size))
                else:
                    file.seek(place := chance.randrange(size))
                    byte = file.read(1)[0]
                    file.seek(place)
                    file.write(bytes([byte ^ (1 << chance.randrange(8))]))
            return path
        except (FileNotFoundError, IndexError, ValueError):
            continue  # deleted or emptied meanwhile: the run goes on
    return None


def sort_out(calm: Mapping[str, bytes], ended: Mapping[str, bytes], damaged: Mapping[str, bytes]) -> tuple[int, int]:
    """How many damaged files are whole again or gone as they should be, and how many lie there as the damage left them.

    Parameters
    ----------
    calm, ended : files of the undisturbed and of the finished run
    damaged : what damage left of each file
    """
    unread = sum(calm.get(name) != ended.get(name) for name in damaged)
    return len(damaged) - unread, unread


def differences(calm: Mapping[str, bytes], disturbed: Mapping[str, bytes], damaged: Mapping[str, bytes]) -> list[str]:
    """Files of the finished run's store that are not as in the undisturbed run: swept alike, and equal to the byte.

    A key that lies there just as the harness damaged it is none: whatever was made from it is compared as well, so nobody who
    read it took it for whole, and nobody will read it again. Blocks are part of the slide and must be whole.
    """
    found = [f"left over in the store: {name}" for name in sorted(disturbed.keys() - calm.keys())]
    found += [f"missing from the store: {name}" for name in sorted(calm.keys() - disturbed.keys())]
    both = sorted(calm.keys() & disturbed.keys())
    unread = {name for name, left in damaged.items() if disturbed.get(name) == left and not name.endswith(".blk")}
    return found + [f"not as undisturbed: {name}" for name in both if calm[name] != disturbed[name] and name not in unread]
