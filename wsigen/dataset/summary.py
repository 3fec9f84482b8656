"""What is in a cohort, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsigen.dataset.batch import CELL_PX
from wsigen.dataset.groups import SPLITS

if TYPE_CHECKING:
    from wsigen.dataset.dataset import Cohort


def summarise(cohort: Cohort) -> dict[str, Any]:
    """Return the figures of both splits as plain JSON values.

    ``px`` counts pixels of a level once, however patches overlap; ``unknown_share`` is the share of tissue and labelled
    area nobody labelled; ``patches`` counts those that hold a class, so a patch may count for several.
    """
    splits = {name: _split(cohort, side) for side, name in enumerate(SPLITS)}
    return {
        "images": len(cohort.members),
        "groups": len({m.group for m in cohort.members}),
        "held_out_groups": sorted(cohort.held_out_groups),
        "skipped": [{"image": name, "reason": reason} for name, reason in cohort.skipped],
        "notes": cohort.notes,
        "patch_px": cohort.settings.patch_px,
        "splits": splits,
        "key": cohort.key,
    }


def _split(cohort: Cohort, side: int) -> dict[str, Any]:
    mine = np.flatnonzero(cohort.sides == side)
    members = [cohort.members[i] for i in mine]
    mpps = [m.mpp for m in members]
    return {
        "images": len(members),
        "labelled_images": sum(m.labelled for m in members),
        "groups": len({m.group for m in members}),
        "um_per_px": [round(min(mpps), 4), round(max(mpps), 4)] if mpps else None,
        "levels": {level.name: _level(cohort, mine, k) for k, level in enumerate(cohort.levels)},
    }


def _level(cohort: Cohort, mine: np.ndarray, level: int) -> dict[str, Any]:
    patches = cohort.patches
    rows = np.isin(patches.member, mine) & (patches.level == level)
    counts, areas = patches.counts[rows], cohort.areas[mine, level].sum(axis=0) * CELL_PX**2
    total = int(areas.sum())
    side, mpp = cohort.settings.patch_px, cohort.mpps[level]
    small = sum(min(cohort.members[i].canvas(mpp)) < side for i in mine)
    coarse = sum(cohort.settings.too_coarse(cohort.members[i].mpp, cohort.levels[level]) for i in mine)
    return {
        "um_per_px": mpp,
        "patches": int(rows.sum()),
        "unlabelled_patches": int((~counts.any(axis=1)).sum()),
        "images_too_small": int(small),
        "images_too_coarse": int(coarse),
        "unknown_share": round(float(areas[-1]) / total, 4) if total else None,
        "classes": {
            c.name: {"patches": int((counts[:, i] > 0).sum()), "px": int(areas[i])} for i, c in enumerate(cohort.table)
        },
    }
