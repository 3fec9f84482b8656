"""Features of crops, computed once: cached on disk by what the crops are and which extractor saw them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError, WsigenError, refusing
from wsigen.evaluation.sides.sides import Crop, Side
from wsigen.models.extractors.extractors import Extractor, identity
from wsigen.storage.files import atomic_path

BATCH = 16
"""Crops a network sees at once: 16 x 299 px of Inception are some 300 MB."""


TURNS = 8
"""Orientations of a square: four quarter turns, of it and of its mirror image."""


@dataclass(frozen=True)
class FeatureSet:
    """Features of the crops of one side.

    Attributes
    ----------
    features : ndarray
        float32 ``(n, d)``, finite.
    crops : list of Crop
        The ``n`` crops, in the same order; empty if the features came as a file.
    classes : list
        Class of each crop, or None.
    """

    features: NDArray[np.float32]
    crops: list[Crop]
    classes: list[str | None]


def extract(
    side: Side,
    crops: list[Crop],
    extractor: Extractor,
    cache: Path | None,
    tick: Callable[[int, int], None] | None = None,
    turn: int = 0,
) -> FeatureSet:
    """Return the features of crops, from the cache if these very crops were seen by this extractor.

    A crop that cannot be read is left out and its image noted in ``side.skipped``.

    Parameters
    ----------
    cache : Path or None
        Folder of feature files, or None.
    tick : callable or None
        Called with the number of crops done, and of all, after each batch.
    turn : int
        The orientation in which crops are described (`turned`); 0: as they are.

    Raises
    ------
    EvaluationError
        If a feature is not finite, no crop can be read, or a cached file belongs to another extractor.
    """
    file = cache / f"{side.name}-{_key(side, crops, extractor, turn)[:24]}.npz" if cache else None
    if file is not None and file.is_file():
        features, classes = load_features(file, extractor)
        if len(features) == len(crops):
            return FeatureSet(features, crops, classes)
    kept, parts = [], []
    for start in range(0, len(crops), BATCH):
        readable, images = _read(side, crops[start : start + BATCH])
        if readable:
            parts.append(extractor.features(np.stack([turned(image, turn) for image in images])))
            kept += readable
        if tick:
            tick(min(start + BATCH, len(crops)), len(crops))
    if not kept:
        raise EvaluationError(f"{side.path}: none of {len(crops)} crops can be read; first: {side.skipped[0].reason}")
    features = np.concatenate(parts)
    _check_finite(features, f"{side.name} crops", extractor.name)
    computed = FeatureSet(features, kept, [c.class_name for c in kept])
    if file is not None and len(kept) == len(crops):
        save_features(file, computed, extractor)
    return computed


def extract_turned(
    side: Side, upright: FeatureSet, extractor: Extractor, cache: Path | None, tick: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """Return the features of crops in all orientations, float32 ``(TURNS, n, d)``, upright ones first.

    Raises
    ------
    EvaluationError
        As `extract`, or if a crop can no longer be read.
    """
    views = [upright.features]
    for turn in range(1, TURNS):
        more = extract(side, upright.crops, extractor, cache, tick, turn)
        if len(more.features) != len(upright.features):
            raise EvaluationError(f"{side.path}: crops were read once and cannot be read again; {side.skipped[-1].reason}")
        views.append(more.features)
    return np.stack(views)


def turned(image: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Return a square ``(P, P, 3)`` in one of `TURNS` orientations: quarter turns, and from 4 on those of its mirror image."""
    return np.rot90(image[:, ::-1] if turn >= TURNS // 2 else image, turn % (TURNS // 2))


def save_features(path: Path, computed: FeatureSet, extractor: Extractor) -> None:
    """Write features, classes and the extractor's identity as ``.npz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside, beside.open("wb") as stream:
        np.savez(
            stream,
            features=computed.features,
            classes=np.array([c or "" for c in computed.classes]),
            extractor=np.array(json.dumps(identity(extractor))),
        )


def load_features(path: Path, extractor: Extractor) -> tuple[NDArray[np.float32], list[str | None]]:
    """Read a feature file.

    Raises
    ------
    EvaluationError
        If it is no feature file, another extractor made it, or it holds values that are not finite.
    """
    with refusing(EvaluationError, f"{path}: not a feature file of wsigen", "remove it"):
        features, classes, made_by = _content(path)
    mine = identity(extractor)
    if made_by != mine:
        raise EvaluationError(
            f"{path}: features of another extractor ({_named(made_by)}; here {_named(mine)}); use that one or remove the file"
        )
    if features.shape != (len(classes), extractor.dimension):
        raise EvaluationError(
            f"{path}: features of shape {features.shape}, but {len(classes)} crops and {extractor.dimension} numbers each are "
            "expected; remove the file"
        )
    _check_finite(features, str(path), extractor.name)
    return features.astype(np.float32), [str(c) or None for c in classes]


def _content(path: Path) -> tuple[NDArray[np.floating], NDArray[np.str_], dict[str, str]]:
    """Features, classes and extractor of a file; raises what numpy, zlib and json do, or TypeError for other values."""
    with np.load(path, allow_pickle=False) as content:  # a bare array is no context: TypeError
        features, classes, made_by = content["features"], content["classes"], json.loads(str(content["extractor"]))
    if features.dtype.kind != "f" or classes.dtype.kind != "U" or classes.ndim != 1 or not isinstance(made_by, dict):
        raise TypeError(f"{features.dtype} features, {classes.dtype} classes, extractor {type(made_by).__name__}")
    return features, classes, made_by


def _named(made_by: dict[str, str]) -> str:
    return f"{made_by.get('name')} {str(made_by.get('sha256'))[:12]}"


def _check_finite(features: NDArray[np.float32], where: str, extractor: str) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise EvaluationError(
            f"{where}: {len(bad)} of {len(features)} feature vectors are not finite (first: {bad[0]}); "
            f"the weights of {extractor} are damaged or overflow"
        )


def _read(side: Side, crops: list[Crop]) -> tuple[list[Crop], list[NDArray[np.uint8]]]:
    readable, images = [], []
    for crop in crops:
        try:
            images.append(side.read(crop))
            readable.append(crop)
        except WsigenError as error:
            side.skip(side.members[crop.member].path, str(error))
    return readable, images


def _key(side: Side, crops: list[Crop], extractor: Extractor, turn: int) -> str:
    """SHA-256 of what decides the features: files (path, size, time), places, classes, extractor, orientation."""
    stats = {i: side.members[i].path.stat() for i in {c.member for c in crops}}
    files = {i: (side.members[i].reference.path, s.st_size, s.st_mtime_ns) for i, s in stats.items()}
    places = [(files[c.member], c.box.y0, c.box.x0, c.box.height, c.canvas, c.class_name) for c in crops]
    return hashlib.sha256(json.dumps([identity(extractor), places, *([turn] if turn else [])]).encode()).hexdigest()
