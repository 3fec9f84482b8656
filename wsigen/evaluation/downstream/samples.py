"""Crops of a side that carry a class or a mask: drawn at random, named by the classes both sides have, read once; and folds."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError, WsigenError
from wsigen.dataset.groups import match_names
from wsigen.evaluation.downstream.results import LEAST_OF_A_CLASS, Settings, Task
from wsigen.evaluation.sides.places import place_crops
from wsigen.evaluation.sides.sides import Crop, Side

U8 = NDArray[np.uint8]

LABELLED = 0.25
"""Share of a crop that must be labelled to learn its segmentation from it."""

_ROUNDS = 4
"""Places are drawn this often, each time twice as many, where few of them carry a class (sparse annotations)."""

_TRIES = 50
"""Shuffles tried until every fold leaves crops of every class to train on."""


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
    side : Side
        Where they are from.
    crops : list of Crop
        Their places.
    shares : ndarray
        float64 ``(n, classes)``, share of a crop each class covers.
    rows : ndarray
        int64 ``(n,)``, their rows in the scratch file.
    """

    side: Side
    crops: list[Crop]
    shares: NDArray[np.float64]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 ``(n,)``, the class that covers most of each crop."""
        return self.shares.argmax(axis=1)

    def present(self, chosen: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """int64 ``(classes,)``: how many crops (of those chosen) show each class."""
        shares = self.shares if chosen is None else self.shares[chosen]
        return np.asarray((shares > 0).sum(axis=0), np.int64)


def draw(side: Side, count: int, settings: Settings, mpp: float | None) -> list[Drawn]:
    """Draw at most ``count`` crops that carry a class (or, for segmentation, are a quarter labelled), by their places.

    Raises
    ------
    EvaluationError
        If no crop carries any.
    """
    drawn: list[Drawn] = []
    for k in range(_ROUNDS):
        asked = count * 2**k
        crops = place_crops(side, asked, settings.size_px, mpp, settings.seed)
        drawn = [Drawn(c, shares) for c in crops if (shares := _shares(side, c, settings.task))]
        if len(drawn) >= count or len(crops) < asked:
            break
    if not drawn:
        what = "a mask: annotations beside slides, or a dataset of them" if settings.task == "segmentation" else "a class"
        how = "sub-folders named by class, GeoJSON beside the slides, or a dataset"
        raise EvaluationError(f"{side.path}: none of {len(crops)} crops has {what}; the {settings.task} needs {how}")
    if len(drawn) > count:
        kept = np.random.default_rng([settings.seed, 1]).permutation(len(drawn))[:count]
        drawn = [drawn[i] for i in sorted(kept)]
    return drawn


def common_classes(drawn: Mapping[str, Sequence[Drawn]]) -> tuple[list[str], list[str]]:
    """Classes that ``real`` and ``synthetic`` both have often enough, as ``real`` writes them, and words on the others.

    Raises
    ------
    EvaluationError
        If there are not two.
    """
    counts = {name: Counter(n.casefold() for d in drawn[name] for n in d.shares) for name in ("real", "synthetic")}
    written = {n.casefold(): n for side in ("synthetic", "real") for d in drawn[side] for n in d.shares}
    kept, notes = [], []
    for key, name in sorted(written.items()):
        n, m = (count[key] for count in counts.values())
        if min(n, m) >= LEAST_OF_A_CLASS:
            kept.append(name)
        else:
            notes.append(f"class {name} is left out: {n} real and {m} synthetic crops, {LEAST_OF_A_CLASS} of each are needed")
    if len(kept) < 2:
        known = {side: ", ".join(f"{written[k]} ({n})" for k, n in sorted(count.items())) for side, count in counts.items()}
        counted = "; ".join(f"{side} has {classes or 'none'}" for side, classes in known.items())
        raise EvaluationError(
            f"no two classes have {LEAST_OF_A_CLASS} crops on both sides: {counted}; name classes alike, or give more images, "
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
            image, mask = side.read(crop), side.mask(crop, classes) if scratch.has_masks else None
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
    shares = side.shares(crop)
    return shares if sum(shares.values()) >= LABELLED else {}


class Scratch:
    """Crops of one size on disk; they are read by position, from any thread.

    Memory bound: none of it is held or mapped; whoever reads rows gets those alone.

    Parameters
    ----------
    folder : Path or None
        Where the file lies (it has no name and is gone when closed), or None: the system's place.
    side_px : int
        Side of a crop (px).
    masks : bool
        Whether each crop has a mask.
    """

    def __init__(self, folder: Path | None, side_px: int, masks: bool) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".wsigen-")  # noqa: SIM115  # closed by close()
        self._side, self.has_masks, self.count = side_px, masks, 0
        self._bytes = side_px**2 * (4 if masks else 3)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, image: U8, mask: U8 | None) -> int:
        """Append a crop uint8 ``(P, P, 3)`` and its mask uint8 ``(P, P)``; returns its row."""
        data = image.tobytes() + (mask.tobytes() if mask is not None else b"")
        if len(data) != self._bytes:
            raise ValueError(f"{len(data)} bytes of a crop, expected {self._bytes}")
        self._file.write(data)
        self.count += 1
        return self.count - 1

    def flush(self) -> None:
        """Make what was added readable."""
        self._file.flush()

    def image(self, row: int) -> U8:
        """uint8 ``(P, P, 3)`` RGB."""
        return self._read(row, 0, 3).reshape(self._side, self._side, 3)

    def mask(self, row: int) -> U8:
        """uint8 ``(P, P)``, class indices or `classes.UNKNOWN`."""
        return self._read(row, 3, 1).reshape(self._side, self._side)

    def _read(self, row: int, first: int, planes: int) -> U8:
        plane = self._side**2
        data = os.pread(self._file.fileno(), planes * plane, row * self._bytes + first * plane)
        return np.frombuffer(data, np.uint8)


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
    pattern : str or None
        Regular expression on the image's path below the side; without it a dataset's groups, folders between class and tile,
        or slides.

    Raises
    ------
    EvaluationError
        If nobody says of which patient or slide a tile is.
    """
    used = sorted({c.member for c in samples.crops})
    if pattern is not None:
        paths = {i: _path_below(samples, i) for i in used}
        matched = match_names(pattern, list(paths.values()), "--groups")
        groups = {i: matched[path] for i, path in paths.items()}
    else:
        groups = {i: _group(samples, i) for i in used}
    return [groups[c.member] for c in samples.crops]


def _path_below(samples: Samples, index: int) -> str:
    path, side = samples.side.members[index].path, samples.side.path
    return path.relative_to(side).as_posix() if path.is_relative_to(side) else str(path)


def _group(samples: Samples, index: int) -> str:
    member = samples.side.members[index]
    if member.group is not None:
        return member.group
    raise EvaluationError(
        f"{member.path}: nobody says of which patient or slide this tile is, and tiles of one patient must not lie on both "
        "sides; sort tiles as CLASS/PATIENT/TILE.png and annotated ones as PATIENT/TILE.png, give --groups with a regular "
        "expression that finds it in the path, or 'groups' in the file of a dataset"
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
