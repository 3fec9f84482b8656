"""Label fidelity: does the picture obey its class map? Networks trained on real crops alone read synthetic slides.

As semantic image synthesis is scored (mIoU of a segmentation network on what was made: Park et al. 2019, "Semantic image
synthesis with spatially-adaptive normalization"), with three differences. Every class is given; beside each number stands
that of the same networks on real slides of patients they have not seen, which is what can be reached; and both are given for
the same composition. Dice and IoU depend on how frequent a class is: networks that find 90 % of it and take 5 % of all else
for it have a Dice of 0.86 where it covers 20 %, and of 0.41 where it covers 2 %. So the classes of the synthetic crops are
weighted as frequent as they are on the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.evaluation.downstream.results import FOLDS, Downstream, Run, Spread, spread
from wsigen.evaluation.report.page import plain, render, write

Confusion = NDArray[np.int64]

HEAD = ("class", "Dice", "Dice, real", "IoU", "IoU, real", "share", "share, real", "most often read as")
"""Columns of the table of classes; "real" is held out, the share is that of labelled pixels."""


@dataclass(frozen=True, slots=True)
class ClassFidelity:
    """A class, or the mean over all: agreement of what the networks read with the class maps.

    Attributes
    ----------
    dice, iou : Spread
        On synthetic crops, weighted as in `as_frequent`; mean and deviation over seeds.
    dice_of_real, iou_of_real : Spread
        On real crops of patients the networks have not seen.
    share, share_of_real : float
        Of the labelled pixels of the synthetic and the real crops (0 to 1); 1 for the mean over all classes.
    """

    name: str
    dice: Spread
    iou: Spread
    dice_of_real: Spread
    iou_of_real: Spread
    share: float
    share_of_real: float


@dataclass(frozen=True, eq=False)
class LabelFidelity:
    """What networks that know real slides alone read in synthetic ones.

    Attributes
    ----------
    result : Downstream
        Settings, sides, counts of crops, warnings.
    classes : list of ClassFidelity
        In the order of ``result.classes``.
    mean : ClassFidelity
        Means over classes.
    confusion, confusion_of_real : ndarray
        int64 ``(classes, classes)`` (class map, read) of labelled pixels, all networks together.
    """

    result: Downstream
    classes: list[ClassFidelity]
    mean: ClassFidelity
    confusion: Confusion
    confusion_of_real: Confusion


def label_fidelity(result: Downstream) -> LabelFidelity | None:
    """Score what the networks of an experiment read; None unless some were trained on folds of REAL for segmentation."""
    real = result.of("real", FOLDS)
    if not (result.readings and real):
        return None
    synthetic, held_out = _by_seed(result.readings), _by_seed(real)
    weighted = [as_frequent(confusion, held_out[seed]) for seed, confusion in synthetic.items() if seed in held_out]
    numbers = [[dice_and_iou(confusion) for confusion in side] for side in (weighted, held_out.values())]
    sums = [np.sum([*of_seed.values()], axis=0) for of_seed in (synthetic, held_out)]

    def scored(name: str, index: int | None) -> ClassFidelity:
        spreads = [spread([_of(each[measure], index) for each in side]) for side in numbers for measure in (0, 1)]
        shares = [1.0 if index is None else float(total[index].sum() / max(total.sum(), 1)) for total in sums]
        return ClassFidelity(name, spreads[0], spreads[1], spreads[2], spreads[3], shares[0], shares[1])

    classes = [scored(name, index) for index, name in enumerate(result.classes)]
    return LabelFidelity(result, classes, scored("mean of the classes", None), sums[0], sums[1])


def as_frequent(confusion: Confusion, other: Confusion) -> NDArray[np.float64]:
    """Weigh the rows of a confusion so that every class it has is as frequent as in another one.

    What is read of each class keeps its shares; a class that one of the two lacks has a row of zeros.

    Returns
    -------
    float64 ``(classes, classes)`` (class map, read).
    """
    own, wanted = (each.sum(axis=1, keepdims=True).astype(np.float64) for each in (confusion, other))
    return confusion * np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)


def dice_and_iou(confusion: Confusion | NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice and intersection over union of each class; NaN where nothing is of it."""
    right, true, read = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    absent = np.where(true > 0, 1.0, np.nan)
    return absent * 2 * right / np.maximum(true + read, 1), absent * right / np.maximum(true + read - right, 1)


def rows(found: LabelFidelity) -> list[list[str]]:
    """A line a class and one for their mean, as ``HEAD`` says."""
    out = []
    for index, each in enumerate([*found.classes, found.mean]):
        numbers = [str(value) for value in (each.dice, each.dice_of_real, each.iou, each.iou_of_real)]
        shares = [f"{each.share:.1%}", f"{each.share_of_real:.1%}"]
        more = [*shares, _mistake(found, index)] if index < len(found.classes) else ["", "", ""]
        out.append([each.name, *numbers, *more])
    return out


def about(found: LabelFidelity) -> list[str]:
    """Crops and networks, a line each."""
    result, s = found.result, found.result.settings
    where = f"{s.size_px} px at {result.mpp:g} um/px" if result.mpp else f"{s.size_px} px"
    counts = [f"{name}: {', '.join(f'{c} {n}' for c, n in by_class.items())}" for name, by_class in result.counts.items()]
    return [
        f"crops of {where}; {'; '.join(counts)}",
        f"network {s.network} ({result.parameters / 1e6:.2f} M parameters), trained on {result.used[0]} real crops, "
        f"{result.steps} steps; {s.folds} folds of patients or slides, {s.seeds} seeds",
    ]


def explained() -> str:
    """How to read the table."""
    return (
        "Agreement (1: all) of class maps with what networks read that were trained on real crops alone. The columns called "
        "real are the same networks on real crops of patients or slides they have not seen. What lies below them is the "
        "synthetic slides' fault, what they lack themselves the network's; above them, synthetic slides are easier to read. "
        "Dice and IoU depend on how frequent classes are: those of synthetic crops are given for the shares of the real ones."
    )


def write_label_fidelity(found: LabelFidelity, folder: Path) -> tuple[Path, Path]:
    """Write ``labels.json`` and ``labels.html`` into a folder, which is made if need be; return their paths."""
    result = found.result
    content = {
        "settings": asdict(result.settings),
        "mpp": result.mpp,
        "crops": result.counts,
        "steps": result.steps,
        **to_json(found),
        "warnings": result.warnings,
    }
    page = render(
        "labels.html",
        result=result,
        notes=about(found),
        headline=[("mean Dice", found.mean.dice), ("of held-out real crops", found.mean.dice_of_real)],
        explained=explained(),
        head=HEAD,
        rows=rows(found),
        predicted=[f"as {name}" for name in result.classes],
        confusions=[("synthetic", _written(found, found.confusion)), ("real", _written(found, found.confusion_of_real))],
    )
    return write(folder, "labels", plain(content), page)


def to_json(found: LabelFidelity) -> dict[str, Any]:
    """The numbers as plain values."""
    return plain(
        {
            "classes": [asdict(each) for each in found.classes],
            "mean": asdict(found.mean),
            "confusion": found.confusion.tolist(),
            "confusion_of_real": found.confusion_of_real.tolist(),
        }
    )


# -- inside ------------------------------------------------------------------------------------------------------------


def _by_seed(runs: Iterable[Run]) -> dict[int, Confusion]:
    """The confusions of all folds of each seed together."""
    sums: dict[int, Confusion] = {}
    for run in runs:
        sums[run.seed] = sums[run.seed] + run.confusion if run.seed in sums else run.confusion
    return sums


def _of(values: NDArray[np.float64], index: int | None) -> float:
    return float(np.nanmean(values) if index is None else values[index])


def _mistake(found: LabelFidelity, index: int) -> str:
    """Which other class a class is read as most often, and how much of it."""
    row = found.confusion[index].copy()
    whole, row[index] = row.sum(), 0
    return f"{found.result.classes[int(row.argmax())]} ({row.max() / whole:.0%})" if row.any() else ""


def _written(found: LabelFidelity, confusion: Confusion) -> list[list[str]]:
    return [[name, *(f"{n:,}" for n in row)] for name, row in zip(found.result.classes, confusion.tolist(), strict=True)]
