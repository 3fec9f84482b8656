"""Crops of a side that carry a class or a mask: drawn at random, named by the classes both sides have, read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import EvaluationError, WsigenError
from wsigen.evaluation.downstream.scratch import Scratch
from wsigen.evaluation.downstream.settings import LEAST_OF_A_CLASS, Settings, Task
from wsigen.evaluation.sides.sides import Crop, Side, at_full_size, place_crops, read_crop

LABELLED = 0.25
"""Share of a crop that must be labelled to learn its segmentation from it."""

_ROUNDS = 4
"""Places are drawn this often, each time twice as many, where few of them carry a class (sparse annotations)."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A crop and what is known of it: the share of each class by its name; a classified crop is of one class."""

    crop: Crop
    shares: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Samples:
    """Crops to train on or to test with.

    Attributes
    ----------
    side:
        Where they are from.
    crops:
        Their places.
    shares:
        float64 ``[n, classes]``, share of a crop each class covers.
    rows:
        int64 ``[n]``, their rows in the scratch file.
    """

    side: Side
    crops: list[Crop]
    shares: NDArray[np.float64]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 ``[n]``, the class that covers most of each crop."""
        return self.shares.argmax(axis=1)

    def present(self, chosen: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """int64 ``[classes]``: how many crops (of those chosen) show each class."""
        shares = self.shares if chosen is None else self.shares[chosen]
        return np.asarray((shares > 0).sum(axis=0), np.int64)


def draw(side: Side, count: int, settings: Settings, mpp: float | None) -> list[Drawn]:
    """Draw at most ``count`` crops that carry a class (or, for segmentation, are a quarter labelled), by their places.

    Raises
    ------
    EvaluationError
        If no crop carries any.
    """
    found: list[Drawn] = []
    for k in range(_ROUNDS):
        asked = count * 2**k
        crops = place_crops(side, asked, settings.size_px, mpp, settings.seed)
        found = [Drawn(c, shares) for c in crops if (shares := _shares(side, c, settings.task))]
        if len(found) >= count or len(crops) < asked:
            break
    if not found:
        what = "a mask: annotations beside slides, or a dataset of them" if settings.task == "segmentation" else "a class"
        how = "sub-folders named by class, GeoJSON beside the slides, or a dataset"
        raise EvaluationError(f"{side.path}: none of {len(crops)} crops has {what}; the {settings.task} needs {how}")
    if len(found) > count:
        kept = np.random.default_rng([settings.seed, 1]).permutation(len(found))[:count]
        found = [found[i] for i in sorted(kept)]
    return found


def common_classes(drawn: Mapping[str, Sequence[Drawn]]) -> tuple[list[str], list[str]]:
    """Classes that ``real`` and ``synthetic`` both have often enough, as ``real`` writes them, and words on the others.

    Raises
    ------
    EvaluationError
        If there are not two.
    """
    counts = {name: _count(drawn[name]) for name in ("real", "synthetic")}
    written = {n.casefold(): n for side in ("synthetic", "real") for d in drawn[side] for n in d.shares}
    kept, notes = [], []
    for key, name in sorted(written.items()):
        n, m = (counts[side].get(key, 0) for side in ("real", "synthetic"))
        if min(n, m) >= LEAST_OF_A_CLASS:
            kept.append(name)
        else:
            notes.append(f"class {name} is left out: {n} real and {m} synthetic crops, {LEAST_OF_A_CLASS} of each are needed")
    if len(kept) < 2:
        told = "; ".join(f"{side} has {_told(counts[side], written)}" for side in counts)
        raise EvaluationError(
            f"no two classes have {LEAST_OF_A_CLASS} crops on both sides: {told}; name classes alike, or give more images, "
            "more --crops or a smaller --size"
        )
    return kept, notes


def named(side: Side, drawn: Iterable[Drawn], classes: Sequence[str]) -> Samples:
    """Keep the crops that carry one of the classes."""
    folded = [c.casefold() for c in classes]
    rows = [(d.crop, [{k.casefold(): v for k, v in d.shares.items()}.get(c, 0.0) for c in folded]) for d in drawn]
    kept = [(crop, shares) for crop, shares in rows if any(shares)]
    return Samples(side, [c for c, _ in kept], np.array([s for _, s in kept], np.float64).reshape(-1, len(classes)))


def read(samples: Samples, classes: Sequence[str], scratch: Scratch, tick: Callable[[int, int], None] | None = None) -> Samples:
    """Read the pixels (and masks) of crops into the scratch file, one in memory at a time.

    A crop that cannot be read is left out and its image noted in the side's ``skipped``.
    """
    side, kept, rows = samples.side, [], []
    for i, crop in enumerate(samples.crops):
        try:
            image, mask = read_crop(side, crop), _mask(side, crop, classes) if scratch.has_masks else None
        except WsigenError as error:
            side.skip(side.members[crop.member].path, str(error))
            continue
        kept.append(i)
        rows.append(scratch.add(image, mask))
        if tick:
            tick(i + 1, len(samples))
    scratch.flush()
    return Samples(side, [samples.crops[i] for i in kept], samples.shares[kept], np.array(rows, np.int64))


def _shares(side: Side, crop: Crop, task: Task) -> Mapping[str, float]:
    if task == "classification":
        return {} if crop.class_name is None else {crop.class_name: 1.0}
    member, labels = side.members[crop.member], side.labels(crop.member)
    if labels is None:
        return {}
    found = labels.shares(at_full_size(member, crop.box, crop.canvas))
    return found if sum(found.values()) >= LABELLED else {}


def _mask(side: Side, crop: Crop, classes: Sequence[str]) -> NDArray[np.uint8]:
    labels = side.labels(crop.member)
    return np.full(crop.box.shape, UNKNOWN, np.uint8) if labels is None else labels.mask(crop.box, crop.canvas, classes)


def _count(drawn: Sequence[Drawn]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for d in drawn:
        for name in d.shares:
            counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
    return counts


def _told(counts: Mapping[str, int], written: Mapping[str, str]) -> str:
    return ", ".join(f"{written[k]} ({n})" for k, n in sorted(counts.items())) or "none"
