"""What is in a dataset, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsigen.dataset.batch import CELL_PX
from wsigen.dataset.groups import SPLITS

if TYPE_CHECKING:
    from wsigen.dataset.dataset import Dataset


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Return the figures of both splits as plain JSON values.

    ``px`` counts pixels of a level once, however patches overlap; ``unknown_share`` is the share of tissue and labelled
    area nobody labelled; ``patches`` counts those that hold a class, so a patch may count for several.
    """
    splits = {name: _split(dataset, side) for side, name in enumerate(SPLITS)}
    return {
        "images": len(dataset.members),
        "groups": len({m.group for m in dataset.members}),
        "held_out_groups": sorted(dataset.held_out_groups),
        "skipped": [{"image": name, "reason": reason} for name, reason in dataset.skipped],
        "notes": dataset.notes,
        "patch_px": dataset.settings.patch_px,
        "splits": splits,
        "key": dataset.key,
    }


def _split(dataset: Dataset, side: int) -> dict[str, Any]:
    mine = np.flatnonzero(dataset.sides == side)
    members = [dataset.members[i] for i in mine]
    mpps = [m.mpp for m in members]
    return {
        "images": len(members),
        "labelled_images": sum(m.labelled for m in members),
        "groups": len({m.group for m in members}),
        "um_per_px": [round(min(mpps), 4), round(max(mpps), 4)] if mpps else None,
        "levels": {level.name: _level(dataset, mine, k) for k, level in enumerate(dataset.levels)},
    }


def _level(dataset: Dataset, mine: np.ndarray, level: int) -> dict[str, Any]:
    patches = dataset.patches
    rows = np.isin(patches.member, mine) & (patches.level == level)
    counts, areas = patches.counts[rows], dataset.areas[mine, level].sum(axis=0) * CELL_PX**2
    total = int(areas.sum())
    side, mpp = dataset.settings.patch_px, dataset.mpps[level]
    small = sum(min(dataset.members[i].canvas(mpp)) < side for i in mine)
    coarse = sum(dataset.settings.too_coarse(dataset.members[i].mpp, dataset.levels[level]) for i in mine)
    return {
        "um_per_px": mpp,
        "patches": int(rows.sum()),
        "unlabelled_patches": int((~counts.any(axis=1)).sum()),
        "images_too_small": int(small),
        "images_too_coarse": int(coarse),
        "unknown_share": round(float(areas[-1]) / total, 4) if total else None,
        "classes": {
            c.name: {"patches": int((counts[:, i] > 0).sum()), "px": int(areas[i])} for i, c in enumerate(dataset.table)
        },
    }
