"""Folds of real crops by patient or slide, never by tile."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.dataset.groups import match_name
from wsigen.evaluation.downstream.samples import Samples

_TRIES = 50
"""Shuffles tried until every fold leaves crops of every class to train on."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Positions of the crops to train on and to test with, and the groups of the latter."""

    training: NDArray[np.int64]
    test: NDArray[np.int64]
    test_groups: list[str]


def crop_groups(samples: Samples, pattern: str | None) -> list[str]:
    """Return the patient or slide of every crop.

    Parameters
    ----------
    pattern:
        Regular expression on the image's path below the side; without it a dataset's groups, folders between class and tile,
        or slides.

    Raises
    ------
    EvaluationError
        If nobody says of which patient or slide a tile is.
    """
    groups = {i: _group(samples, i, pattern) for i in sorted({c.member for c in samples.crops})}
    return [groups[c.member] for c in samples.crops]


def _group(samples: Samples, index: int, pattern: str | None) -> str:
    side, member = samples.side, samples.side.members[index]
    if pattern is not None:
        inside = member.path.is_relative_to(side.path)
        return match_name(pattern, member.path.relative_to(side.path).as_posix() if inside else str(member.path), "--groups")
    if member.group is not None:
        return member.group
    if side.labels(index) is not None:
        return member.path.relative_to(side.path).as_posix()
    raise EvaluationError(
        f"{member.path}: nobody says of which patient or slide this tile is, and tiles of one patient must not lie on both "
        "sides; sort them as CLASS/PATIENT/TILE.png, or give --groups with a regular expression that finds it in the path"
    )


def split(samples: Samples, groups: Sequence[str], classes: Sequence[str], count: int, seed: int) -> list[Fold]:
    """Deal groups out to folds with like shares of the classes (scikit-learn's ``StratifiedGroupKFold``).

    Every fold leaves crops of every class to train on; a class may be missing in a test part.

    Raises
    ------
    EvaluationError
        If there are fewer groups than folds, or a class in too few groups to be both trained and tested.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    known = sorted(set(groups))
    if len(known) < count:
        raise EvaluationError(
            f"folds are impossible: {count} of them and {len(known)} patient{'s' * (len(known) != 1)} or slides "
            f"({', '.join(known[:5])}); give more images, --folds {max(2, len(known))}, or --folds 0 and --test"
        )
    names, present = np.array(groups), samples.shares > 0
    for index, name in enumerate(classes):
        of_class = set(names[present[:, index]].tolist())
        if len(of_class) < 2:
            raise EvaluationError(
                f"class {name} is in one patient or slide only ({', '.join(of_class)}), it cannot be both trained and tested; "
                "give more of it, or --folds 0 and --test"
            )
    for attempt in range(_TRIES):
        dealer = StratifiedGroupKFold(count, shuffle=True, random_state=seed + attempt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class of fewer crops than folds
            pairs = list(dealer.split(present, samples.labels, names))
        if all(len(test) and samples.present(training).all() for training, test in pairs):
            return [Fold(training, test, sorted(set(names[test].tolist()))) for training, test in pairs]
    raise EvaluationError(
        f"no {count} folds leave every class crops to train on: classes are in too few patients or slides; "
        "give more images, fewer --folds, or --folds 0 and --test"
    )
