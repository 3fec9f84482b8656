"""Splits by patient or slide, never by tile."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from wsigen.base.errors import DatasetError, suggest
from wsigen.dataset.images import ImageFile, base_name
from wsigen.dataset.settings import DatasetSettings, TileSource
from wsigen.dataset.tables import column_of_images, few, folder_of

TRAINING, HELD_OUT = 0, 1
SPLITS = ("training", "held_out")


def group_images(settings: DatasetSettings, files: Sequence[ImageFile]) -> Mapping[str, str | None]:
    """Return the group of every image by its name; without ``groups`` a slide is its own, and of tiles nobody knows it: None.

    Raises
    ------
    DatasetError
        If ``groups`` finds none for an image, or tiles would be split one by one.
    """
    groups, names = settings.groups, [f.name for f in files]
    if groups is None:
        splits = bool(settings.held_out or settings.held_out_share)
        if splits and any(isinstance(s, TileSource) for s in settings.sources):
            raise DatasetError(
                "held-out tiles without 'groups': tiles of one patient would land on both sides; "
                "give groups.pattern or groups.csv that names the patient or slide of a tile"
            )
        tiles = {f.name for f in files if isinstance(settings.sources[f.source], TileSource)}
        return {name: None if name in tiles else base_name(PurePosixPath(name)) for name in names}  # S1.svs, S1.ome.tif
    if groups.csv is not None:
        path = settings.root / groups.csv
        return column_of_images(path, groups.image, groups.group, names, folder=folder_of(groups.csv))
    return match_names(str(groups.pattern), names, "groups.pattern")


def match_names(pattern: str, names: Sequence[str], field: str) -> dict[str, str]:
    """Return the first group of ``pattern`` that matched in each image's name (the whole match if it has none).

    Raises
    ------
    DatasetError
        If the pattern is no regular expression, or does not match; all names it does not match are counted.
    """
    try:
        matches = {name: re.search(pattern, name) for name in names}
    except re.error as error:
        raise DatasetError(f"{field} {pattern!r} is not a regular expression ({error}); mend it") from None
    texts = {name: match and next((g for g in (match.groups() or (match[0],)) if g), None) for name, match in matches.items()}
    missed = [name for name, text in texts.items() if not text]
    if missed:
        those = f"{len(missed)} of {len(names)} image names ({few(missed, 10)})"
        raise DatasetError(f"{field} {pattern!r} finds nothing in {those}; widen it or use a CSV")
    return {name: text for name, text in texts.items() if text}


def split_groups(settings: DatasetSettings, groups: Mapping[str, str | None]) -> frozenset[str]:
    """Return the groups that are held out.

    A share takes the groups whose hash with the seed is smallest, at least one: the same for any order of images.

    Raises
    ------
    DatasetError
        If a named group does not exist, or none is left to train on.
    """
    known = sorted({group for group in groups.values() if group is not None})
    for name in settings.held_out:
        if name not in known:
            some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise DatasetError(f"held_out: no group {name!r}{suggest(name, known)}; the images' groups are {some}")
    held_out = frozenset(settings.held_out)
    if settings.held_out_share:
        count = max(1, round(settings.held_out_share * len(known)))
        held_out = frozenset(sorted(known, key=lambda g: _hash(settings.seed, g))[:count])
    if held_out and len(held_out) == len(known):
        raise DatasetError(f"all {len(known)} groups are held out, none is left to train on; hold out fewer or add patients")
    return held_out


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()
