"""The experiment: sides in; three arms trained on equal steps, tested on real crops of other patients; every count out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.downstream.results import FOLDS, READ, Arm, Downstream, Run, Settings
from wsigen.evaluation.downstream.samples import Fold, Samples, Scratch, common_classes, crop_groups, draw, named, read, split
from wsigen.evaluation.evaluate import Watch, counted
from wsigen.evaluation.sides.marks import marked
from wsigen.evaluation.sides.members import folders_without_class
from wsigen.evaluation.sides.sides import (
    Side,
    common_mpp,
    enlarged,
    image_notes,
    open_side,
    shared_files,
    unused_names,
    without_tissue,
)
from wsigen.layout.class_names import WrittenClasses

if TYPE_CHECKING:
    from wsigen.evaluation.downstream.networks import Prepared

EXAMPLES = 8
"""Crops of a class and side kept for the report."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is trained and tested: crops of all sides in one scratch file, and the folds of the real ones."""

    scratch: Scratch
    samples: dict[str, Samples]
    folds: list[Fold]
    chosen: NDArray[np.int64]
    """Positions of the synthetic crops that are trained on: the same in every fold and arm."""


def run_downstream(settings: Settings, watch: Watch | None = None) -> Downstream:
    """Train networks on real crops, on synthetic ones and on both, and test all on real crops of other patients.

    Memory bound: a few batches; the pixels of all crops lie in an unnamed scratch file.

    Raises
    ------
    WsigenError
        If a side cannot be used: nothing readable, too few crops, no common classes, no masks, no groups.
    """
    make = _network(settings)
    names = WrittenClasses(settings.layout_names)
    sides = _open(settings, names, watch)
    mpp = common_mpp(list(sides.values()), settings.mpp)
    notes = marked(sides.values()) + image_notes(sides.values()) + enlarged(list(sides.values()), mpp) + unused_names(names)
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch(settings.scratch, settings.size_px, settings.task == "segmentation"))
        result, samples = _read(settings, sides, mpp, scratch, watch)
        notes += without_tissue(sides.values())
        groups = crop_groups(samples["real"], settings.groups) if settings.folds else []
        folds = split(samples["real"], groups, result.classes, settings.folds, settings.seed) if settings.folds else []
        plan = _Plan(scratch, samples, folds, _choose(result, samples, folds))
        result.folds = [f.test_groups for f in folds]
        network = make(len(result.classes))
        result.parameters = network.parameter_count
        for arm, seed, fold in _networks(plan, settings):
            result.runs += _train(result, plan, make, arm, seed, fold, watch)
        result.examples = _examples(plan, result.classes)
    result.warnings += notes + _notes(result, samples, folds)
    return result


def _network(settings: Settings) -> Callable[[int], Prepared]:
    """What builds a network for a number of classes; its name and device are tried before any slide is read."""
    from wsigen.evaluation.downstream.networks import open_network, try_network
    from wsigen.models.extractors.torch_module import check_device

    check_device(settings.device)
    try_network(settings.network, settings.task, settings.size_px)
    return lambda classes: open_network(settings.network, settings.task, classes)


def _open(settings: Settings, names: WrittenClasses, watch: Watch | None) -> dict[str, Side]:
    given = [("real", "real", settings.real, settings.real_mpp)]
    given += [("synthetic", "synthetic", settings.synthetic, settings.synthetic_mpp)]
    given += [(_test_name(path), "test", path, settings.test_mpp) for path in settings.tests]
    twice = [path for path, count in Counter(settings.tests).items() if count > 1]
    if twice:
        raise EvaluationError(f"--test {twice[0]}: given twice; leave one out")
    exact = settings.mpp is not None
    return {
        key: open_side(name, path, mpp, counted(f"{key}, images indexed", watch), names, exact)
        for key, name, path, mpp in given
    }


def _test_name(test: Path) -> str:
    """The name of a test side, its path; a folder may be called as the two other sides are."""
    return f"./{test}" if str(test) in ("real", "synthetic") else str(test)


def _read(
    settings: Settings, sides: dict[str, Side], mpp: float | None, scratch: Scratch, watch: Watch | None
) -> tuple[Downstream, dict[str, Samples]]:
    """Draw crops of every side, agree on classes, read the pixels."""
    asked = {"synthetic": math.ceil(settings.ratio * settings.crops)}
    drawn = {name: draw(side, asked.get(name, settings.crops), settings, mpp) for name, side in sides.items()}
    classes, left_out = common_classes(drawn)
    samples = {}
    for name, side in sides.items():
        samples[name] = read(named(side, drawn[name], classes), classes, scratch, counted(f"{name}, crops read", watch))
        if not len(samples[name]):
            raise EvaluationError(f"{side.path}: none of its crops is of {', '.join(classes)}; name classes alike")
    counts = {name: dict(zip(classes, s.present().tolist(), strict=True)) for name, s in samples.items()}
    return Downstream(settings, mpp, classes, sides, counts, warnings=left_out), samples


def _choose(result: Downstream, samples: dict[str, Samples], folds: list[Fold]) -> NDArray[np.int64]:
    """Take ``ratio`` synthetic crops for each real one of a fold's training part, and set the steps of every network."""
    s, n = result.settings, len(samples["real"])
    real = round(sum(len(f.training) for f in folds) / len(folds)) if folds else n
    result.used, result.steps = (real, 0), s.epochs * max(1, math.ceil(real / s.batch))
    if s.arms == ("real",):
        return np.zeros(0, np.int64)
    order = np.random.default_rng([s.seed, 2]).permutation(len(samples["synthetic"]))
    wanted = max(1, round(s.ratio * real))
    if wanted > len(order):
        result.warnings.append(
            f"{len(order)} synthetic crops for {real} real ones: a ratio of {len(order) / real:.2f}, {s.ratio:g} was asked for"
        )
    chosen = np.sort(order[:wanted])
    missing = [c for c, n in zip(result.classes, samples["synthetic"].present(chosen), strict=True) if not n]
    if missing:
        raise EvaluationError(
            f"no crop of {', '.join(missing)} among the {wanted} synthetic crops of --ratio {s.ratio:g}; raise it"
        )
    result.used = real, len(chosen)
    return chosen


def _networks(plan: _Plan, settings: Settings) -> Iterator[tuple[Arm, int, int | None]]:
    """Every network to train; the synthetic arm sees no real crop and needs one a seed, whatever the folds."""
    for seed in range(settings.seeds):
        folds = range(len(plan.folds)) if plan.folds else [None]
        for arm in ("synthetic", "real", "both"):
            if arm in settings.arms:
                yield from ((arm, seed, fold) for fold in ([None] if arm == "synthetic" else folds))


def _train(
    result: Downstream,
    plan: _Plan,
    make: Callable[[int], Prepared],
    arm: Arm,
    seed: int,
    fold: int | None,
    watch: Watch | None,
) -> list[Run]:
    """Train one network and test it: on its fold (the synthetic arm's on each), and on the other sides."""
    from wsigen.evaluation.downstream.fitting import Batches, confusion, fit

    s, real = result.settings, plan.samples["real"]
    training = plan.folds[fold].training if fold is not None else np.arange(len(real))
    parts = {"real": (real, training), "synthetic": (plan.samples["synthetic"], plan.chosen)}
    drawn = [parts["real"], parts["synthetic"]] if arm == "both" else [parts[arm]]
    start = int(np.random.SeedSequence([s.seed, seed, fold or 0]).generate_state(1)[0])  # the same for every arm
    place = "" if fold is None or not plan.folds else f", fold {fold + 1} of {len(plan.folds)}"
    what = f"seed {seed + 1} of {s.seeds}{place}, trained on {arm}: steps"
    batches = Batches(plan.scratch, drawn, s.batch, start)
    network = fit(lambda: make(len(result.classes)), batches, result.steps, start, s.device, counted(what, watch))

    def tested(samples: Samples, chosen: NDArray[np.int64], test: str, part: int | None) -> Run:
        counted = confusion(network, plan.scratch, samples, chosen, len(result.classes), s.device)
        return Run(arm, seed, fold, test, part, counted)

    if arm == "real" and s.task == "segmentation":
        synthetic = plan.samples["synthetic"]
        result.readings.append(tested(synthetic, np.arange(len(synthetic)), READ, None))
    folds = range(len(plan.folds)) if fold is None else [fold]
    runs = [tested(real, plan.folds[k].test, FOLDS, k) for k in folds]
    others = {name: samples for name, samples in plan.samples.items() if name not in ("real", "synthetic")}
    return runs + [tested(samples, np.arange(len(samples)), name, None) for name, samples in others.items()]


def _examples(plan: _Plan, classes: list[str]) -> dict[str, dict[str, list[NDArray[np.uint8]]]]:
    result = {}
    for side in ("real", "synthetic"):
        samples = plan.samples[side]
        rows = {c: samples.rows[samples.labels == k] for k, c in enumerate(classes)}
        result[side] = {c: [plan.scratch.image(int(r)) for r in _spaced(rows[c])] for c in classes}
    return result


def _spaced(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).astype(int))] if len(rows) else rows


def _notes(result: Downstream, samples: Mapping[str, Samples], folds: Sequence[Fold]) -> list[str]:
    """Return the warnings, one a line."""
    out = list(dict.fromkeys(str(k) for side in result.sides.values() for k in side.skipped))
    out += [f"{s.path}: {text}" for s in result.sides.values() for text in folders_without_class(s.path, s.members)]
    out += [reason for side in result.sides.values() for reason in side.unlabelled.values()]
    if result.mpp is None:
        out.append("no image says its um/px; pixels were compared as they are")
    out += [*_copies(result), *_absent(result, samples["real"], folds)]
    if result.settings.seeds < 3:
        out.append("fewer than three seeds: the deviation over them says little; raise --seeds")
    return out


def _copies(result: Downstream) -> Iterator[str]:
    sides = result.sides
    for name, side in sides.items():
        count = 0 if name == "real" else shared_files(sides["real"], side)
        if count and name == "synthetic":
            yield (
                f"real and synthetic are the same in {count} of {len(side.members)} files: networks trained on synthetic crops "
                "have seen what they are tested on, their scores say nothing"
            )
        elif count:
            yield f"{name}: {count} of {len(side.members)} files are in REAL, too: networks were trained on them"


def _absent(result: Downstream, real: Samples, folds: Sequence[Fold]) -> Iterator[str]:
    for k, fold in enumerate(folds):
        absent = [c for c, n in zip(result.classes, real.present(fold.test), strict=True) if not n]
        if absent:
            yield f"fold {k + 1} has no test crop of {', '.join(absent)}: its scores are means over the other classes"
    for name in result.sides:
        absent = [c for c, n in result.counts[name].items() if not n]
        if absent:
            yield f"{name}: no crop of {', '.join(absent)}: scores are means over the other classes"
