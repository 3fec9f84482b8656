"""What the mask model is trained on: class maps of whole slides and their subtypes, and random views of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import DatasetError, suggest
from wsigen.dataset.dataset import Dataset
from wsigen.training.recipes import MaskRecipe

CELL_PX = 64
"""Side of a cell in px of the dataset's finest level, unless the recipe says how many um (DiffInfinite: 1/64)."""


@dataclass(frozen=True, slots=True)
class MaskExample:
    """The class map of a slide.

    Attributes
    ----------
    cells : uint8 [h, w], class indices, or ``UNKNOWN`` where nobody said
    subtype : index of the slide's subtype
    """

    cells: NDArray[np.uint8]
    subtype: int


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """``cells`` uint8 ``[B, S, S]`` (class indices or ``UNKNOWN``) and ``subtypes`` int64 ``[B]``."""

    cells: NDArray[np.uint8]
    subtypes: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MaskData:
    """What a mask model is trained on.

    Attributes
    ----------
    subtypes : names, by the index that ``examples`` have
    cell_um : um of a cell
    key : identifies the dataset
    """

    examples: tuple[MaskExample, ...]
    table: ClassTable
    subtypes: tuple[str, ...]
    cell_um: float
    key: str

    def describe(self, side: int) -> str:
        """Say in one line how many maps of which sizes there are, and how many a model of ``side`` cells cuts."""
        shapes = np.array([e.cells.shape for e in self.examples])
        slides = Counter(self.subtypes[e.subtype] for e in self.examples)
        cut = int((shapes.max(axis=1) > side).sum())
        sizes = f"{shapes.min()} to {shapes.max()} cells of {self.cell_um:g} um a side"
        kinds = ", ".join(f"{name} {slides[name]}" for name in self.subtypes)
        whole = f"; {cut} are larger than {side} cells and cut: cell_um {self._whole(side):.0f} shows them whole" if cut else ""
        return f"{len(self.examples)} class maps ({kinds}), {sizes}{whole}"

    def _whole(self, side: int) -> float:
        largest = max(max(e.cells.shape) for e in self.examples)
        return float(np.ceil(self.cell_um * largest / side))


def read_maps(recipe: MaskRecipe, dataset: Dataset) -> MaskData:
    """Draw the class map of every labelled slide of the training split; what nobody labelled stays unknown.

    Tiles are no slides, and a slide none of whose cells has a class says nothing; both are left out.

    Raises
    ------
    DatasetError
        If the dataset names no subtypes, a subtype has no labelled slide, or there are fewer than ``least_slides``.
    """
    if dataset.settings.subtypes is None:
        raise DatasetError(
            f"{recipe.dataset}: names no subtypes, which a mask model is conditioned on; "
            "add 'subtypes: {csv: FILE, image: COLUMN, subtype: COLUMN}'"
        )
    subtypes = _subtypes(recipe, dataset)
    cell_um = recipe.cell_um or CELL_PX * dataset.mpps[0]
    examples = []
    for member in dataset.training:
        if not member.labels.any or member.subtype not in subtypes:  # tiles have no subtype
            continue
        cells = member.overview(cell_um)
        if (cells != UNKNOWN).any():
            examples.append(MaskExample(cells, subtypes.index(member.subtype)))
    _check(recipe, dataset, subtypes, examples, cell_um)
    return MaskData(tuple(examples), dataset.table, subtypes, cell_um, dataset.key)


def _subtypes(recipe: MaskRecipe, dataset: Dataset) -> tuple[str, ...]:
    known = sorted({m.subtype for m in dataset.members if m.subtype is not None})
    for name in recipe.subtypes or ():
        if name not in known:
            raise DatasetError(
                f"{recipe.dataset}: no slide is of subtype {name!r}{suggest(name, known)}; its table has {', '.join(known)}"
            )
    chosen = recipe.subtypes or tuple(known)
    folded = Counter(name.casefold() for name in chosen)
    twice = [name for name in chosen if folded[name.casefold()] > 1]
    if twice:
        raise DatasetError(f"{recipe.dataset}: subtypes {' and '.join(map(repr, twice))} are one name; spell them alike, once")
    return chosen


def _check(
    recipe: MaskRecipe, dataset: Dataset, subtypes: Sequence[str], examples: Sequence[MaskExample], cell_um: float
) -> None:
    counts = Counter(e.subtype for e in examples)
    for index, name in enumerate(subtypes):
        if not counts[index]:
            raise DatasetError(
                f"{recipe.dataset}: subtype {name!r} has no labelled slide to train on ({_why(dataset, name)}); "
                "label one, or name the other subtypes with 'subtypes' in the recipe"
            )
    if len(examples) < recipe.least_slides:
        raise DatasetError(
            f"{recipe.dataset}: {len(examples)} labelled slides with a subtype, a mask model needs {recipe.least_slides}, or "
            "it repeats those it saw; label more, lower least_slides, or let 'generate --layout sample' draw by rule"
        )


def _why(dataset: Dataset, name: str) -> str:
    """What the slides of a subtype are, if not labelled slides of the training split."""
    of = [m for m in dataset.members if m.subtype == name]
    kinds = {
        "held out": sum(m.group in dataset.held_out_groups for m in of),
        "without labels": sum(not m.labels.any for m in of),
        "in all": len(of),
    }
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "no slide at all"


class MaskStream:
    """Random views of class maps; see `crops.Stream`.

    Parameters
    ----------
    examples : sequence of MaskExample
        At least one; subtypes are drawn alike often, however many maps each has.
    side : int
        Cells per side of what is drawn.
    padding : int
        Class index (of glass) or ``UNKNOWN``, which pads maps that are smaller.
    """

    def __init__(self, examples: Sequence[MaskExample], side: int, padding: int, seed: int) -> None:
        self._of = [[e for e in examples if e.subtype == s] for s in sorted({e.subtype for e in examples})]
        self._side, self._padding, self._seed = side, padding, seed

    def batch(self, step: int, count: int) -> MaskBatch:
        """The batch of a step."""
        rng = np.random.default_rng((self._seed, step))
        drawn = []
        for _ in range(count):
            of_subtype = self._of[int(rng.integers(len(self._of)))]
            drawn.append(of_subtype[int(rng.integers(len(of_subtype)))])
        cells = np.stack([view(example.cells, self._side, self._padding, rng) for example in drawn])
        return MaskBatch(cells, np.array([example.subtype for example in drawn], dtype=np.int64))


def view(cells: NDArray[np.uint8], side: int, padding: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of the eight dihedral turns of a map, cut or padded at a random place: uint8 ``[side, side]``.

    A map that is mostly unknown is as good as any: what is unknown is not trained.
    """
    turned = np.rot90(cells, int(rng.integers(4)))
    turned = turned[:, ::-1] if rng.integers(2) else turned
    shifts = [(size, int(rng.integers(abs(size - side) + 1))) for size in turned.shape]
    cut = turned[tuple(slice(shift, shift + side) if size > side else slice(None) for size, shift in shifts)]
    margins = [(0, 0) if size > side else (shift, side - size - shift) for size, shift in shifts]
    return np.pad(cut, margins, constant_values=padding)
