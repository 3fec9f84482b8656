"""Batches of class maps for the mask model: any maps, turned, mirrored, cut or padded to one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MaskExample:
    """The class map of a slide.

    Attributes
    ----------
    cells:
        uint8 ``[h, w]``: class indices, or ``UNKNOWN`` where nobody said.
    subtype:
        Index of the slide's subtype.
    """

    cells: NDArray[np.uint8]
    subtype: int


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """``cells`` uint8 ``[B, S, S]`` (class indices or ``UNKNOWN``) and ``subtypes`` int64 ``[B]``."""

    cells: NDArray[np.uint8]
    subtypes: NDArray[np.int64]


class MaskStream:
    """Random views of class maps: a pure function of (seed, step), so that a resumed training sees the same batches.

    Parameters
    ----------
    examples:
        At least one; subtypes are drawn alike often, however many maps each has.
    side:
        Cells per side of what is drawn.
    background:
        Class index of glass, which pads maps that are smaller.

    Raises
    ------
    ConfigError
        If there is no map, or one is empty or not two-dimensional.
    """

    def __init__(self, examples: Sequence[MaskExample], side: int, background: int, seed: int) -> None:
        if not examples:
            raise ConfigError("mask model: there is no class map to train on; label at least one slide")
        for k, example in enumerate(examples):
            if example.cells.ndim != 2 or not example.cells.size or example.cells.dtype != np.uint8:
                raise ConfigError(
                    f"mask model: class map {k} is {example.cells.dtype} {example.cells.shape}; uint8 [h, w] needed"
                )
        self._examples = examples
        self._of = [[e for e in examples if e.subtype == s] for s in sorted({e.subtype for e in examples})]
        self._side, self._background, self._seed = side, background, seed

    def batch(self, step: int, count: int) -> MaskBatch:
        """The batch of a step."""
        rng = np.random.default_rng((self._seed, step))
        drawn = []
        for _ in range(count):
            of_subtype = self._of[int(rng.integers(len(self._of)))]
            drawn.append(of_subtype[int(rng.integers(len(of_subtype)))])
        cells = np.stack([view(example.cells, self._side, self._background, rng) for example in drawn])
        return MaskBatch(cells, np.array([example.subtype for example in drawn], dtype=np.int64))


def view(cells: NDArray[np.uint8], side: int, background: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of the eight dihedral turns of a map, cut or padded with glass at a random place: uint8 ``[side, side]``.

    A map that is mostly unknown is as good as any: what is unknown is not trained.
    """
    turned = np.rot90(cells, int(rng.integers(4)))
    turned = turned[:, ::-1] if rng.integers(2) else turned
    out = np.full((side, side), background, np.uint8)
    source, target = zip(*(_overlap(extent, side, rng) for extent in turned.shape), strict=True)
    out[target] = turned[source]
    return out


def _overlap(extent: int, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Which part of an axis of ``extent`` goes where on one of ``side``."""
    shift = int(rng.integers(abs(extent - side) + 1))
    common = min(extent, side)
    source = shift if extent > side else 0
    target = shift if side > extent else 0
    return slice(source, source + common), slice(target, target + common)


def check_maps(examples: Sequence[MaskExample], classes: int, subtypes: int) -> None:
    """Refuse maps with classes or subtypes outside the model's (ConfigError)."""
    for k, example in enumerate(examples):
        known = example.cells[example.cells != UNKNOWN]
        if known.size and int(known.max()) >= classes:
            raise ConfigError(f"mask model: class map {k} holds class {known.max()}; the table has 0 to {classes - 1}")
        if not 0 <= example.subtype < subtypes:
            raise ConfigError(f"mask model: class map {k} is of subtype {example.subtype}; there are 0 to {subtypes - 1}")
