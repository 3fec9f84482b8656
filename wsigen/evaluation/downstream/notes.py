"""What a reader of a downstream evaluation must know: copies, missing classes, files left out, few runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from wsigen.evaluation.copies import shared_files
from wsigen.evaluation.downstream.folds import Fold
from wsigen.evaluation.downstream.results import Downstream
from wsigen.evaluation.downstream.samples import Samples
from wsigen.evaluation.sides.members import folders_without_class


def notes(found: Downstream, samples: Mapping[str, Samples], folds: Sequence[Fold]) -> list[str]:
    """Return the warnings, one a line."""
    out = list(dict.fromkeys(str(k) for side in found.sides.values() for k in side.skipped))
    out += [f"{s.path}: {text}" for s in found.sides.values() for text in folders_without_class(s.path, s.members)]
    out += [reason for side in found.sides.values() for reason in side.unlabelled.values()]
    if found.mpp is None:
        out.append("no image says its um/px; pixels were compared as they are")
    out += [*_copies(found), *_absent(found, samples["real"], folds)]
    if found.settings.seeds < 3:
        out.append("fewer than three seeds: the deviation over them says little; raise --seeds")
    return out


def _copies(found: Downstream) -> Iterator[str]:
    sides = found.sides
    for name, side in sides.items():
        count = 0 if name == "real" else shared_files(sides["real"], side)
        if count and name == "synthetic":
            yield (
                f"real and synthetic are the same in {count} of {len(side.members)} files: networks trained on synthetic crops "
                "have seen what they are tested on, their scores say nothing"
            )
        elif count:
            yield f"{name}: {count} of {len(side.members)} files are in REAL, too: networks were trained on them"


def _absent(found: Downstream, real: Samples, folds: Sequence[Fold]) -> Iterator[str]:
    for k, fold in enumerate(folds):
        absent = [c for c, n in zip(found.classes, real.present(fold.test), strict=True) if not n]
        if absent:
            yield f"fold {k + 1} has no test crop of {', '.join(absent)}: its scores are means over the other classes"
    for name in found.sides:
        absent = [c for c, n in found.counts[name].items() if not n]
        if absent:
            yield f"{name}: no crop of {', '.join(absent)}: scores are means over the other classes"
