"""What is in a dataset: figures, and a contact sheet of random crops beside their class maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.drawing import little_labelled
from wsigen.dataset.groups import SPLITS, TRAINING
from wsigen.dataset.settings import CELL_PX
from wsigen.models.card import ClassCount, TrainedOn
from wsigen.storage.files import atomic_path

UNKNOWN_RGB = (70, 70, 70)
"""Colour of what nobody labelled."""

SHOWN_PX, GAP_PX, COLUMNS = 192, 6, 4
"""Of the contact sheet: side of a picture, space between pictures, pairs in a row."""


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Return the figures of both splits as plain JSON values.

    ``px`` counts pixels of a level once, however patches overlap; ``unknown_share`` is the share of tissue and labelled
    area nobody labelled; ``patches`` counts those that hold a class, so a patch may count for several;
    ``little_labelled_patches`` are drawn as if they had no label (`drawing.little_labelled`).
    """
    return {
        "images": len(dataset.members),
        "groups": len({m.group for m in dataset.members} - {None}),
        "held_out_groups": sorted(dataset.held_out_groups),
        "skipped": [{"image": name, "reason": reason} for name, reason in dataset.skipped],
        "notes": dataset.notes,
        "patch_px": dataset.settings.patch_px,
        "splits": {name: _split(dataset, side) for side, name in enumerate(SPLITS)},
        "key": dataset.key,
    }


def trained_on(dataset: Dataset) -> TrainedOn:
    """Count what the training split of a dataset holds, for the card of a bundle."""
    patches, sides = dataset.split_patches("training"), dataset.sides
    members = [dataset.members[i] for i in np.flatnonzero(sides == TRAINING)]

    def count(rows: NDArray[np.bool_]) -> ClassCount:
        return ClassCount(patches=int(rows.sum()), images=len(np.unique(patches.member[rows])))

    levels = {}
    for k, level in enumerate(dataset.levels):
        at = patches.level == k
        levels[level.name] = {c.name: count(at & (patches.counts[:, i] > 0)) for i, c in enumerate(dataset.table)}
        levels[level.name]["(not labelled)"] = count(at & ~patches.counts.any(axis=1))
    return TrainedOn(
        dataset=dataset.key,
        images=len(members),
        groups=len({m.group for m in members} - {None}),
        held_out_groups=len(dataset.held_out_groups),
        levels=levels,
    )


def _split(dataset: Dataset, side: int) -> dict[str, Any]:
    rows = np.flatnonzero(dataset.sides == side)
    members = [dataset.members[i] for i in rows]
    mpps = [m.mpp for m in members]
    return {
        "images": len(members),
        "labelled_images": sum(m.labelled for m in members),
        "groups": len({m.group for m in members} - {None}),
        "um_per_px": [round(min(mpps), 4), round(max(mpps), 4)] if mpps else None,
        "levels": {level.name: _level(dataset, rows, k) for k, level in enumerate(dataset.levels)},
    }


def _level(dataset: Dataset, members: NDArray[np.int64], level: int) -> dict[str, Any]:
    patches, settings, mpp = dataset.patches, dataset.settings, dataset.mpps[level]
    rows = np.isin(patches.member, members) & (patches.level == level)
    counts, areas = patches.counts[rows], dataset.areas[members, level].sum(axis=0) * CELL_PX**2
    total = int(areas.sum())
    images = [dataset.members[i] for i in members]
    return {
        "um_per_px": mpp,
        "patches": int(rows.sum()),
        "unlabelled_patches": int((~counts.any(axis=1)).sum()),
        "little_labelled_patches": int(little_labelled(counts, dataset.cells_of_patch).sum()),
        "images_too_small": sum(min(m.canvas(mpp)) < settings.patch_px for m in images),
        "images_too_coarse": sum(settings.too_coarse(m.mpp, dataset.levels[level]) for m in images),
        "unknown_share": round(float(areas[-1]) / total, 4) if total else None,
        "classes": {
            c.name: {"patches": int((counts[:, i] > 0).sum()), "px": int(areas[i])} for i, c in enumerate(dataset.table)
        },
    }


def write_sheet(dataset: Dataset, path: Path, seed: int = 0, per_level: int = 16) -> None:
    """Write a PNG: for each level that has training patches ``per_level`` pairs of crop and class map, and a legend."""
    from PIL import Image, ImageDraw

    levels = sorted(set(dataset.split_patches("training").level.tolist()))
    pair, block = 2 * (SHOWN_PX + GAP_PX), -(-per_level // COLUMNS) * (SHOWN_PX + GAP_PX) + 24
    legend = [*((c.name, c.color) for c in dataset.table), ("not labelled", UNKNOWN_RGB)]
    sheet = Image.new("RGB", (COLUMNS * pair + GAP_PX, len(levels) * block + 28 + 18 * len(legend)), "white")
    draw = ImageDraw.Draw(sheet)
    for n, k in enumerate(levels):
        draw.text((GAP_PX, n * block + 6), f"{dataset.levels[k].name}, {dataset.mpps[k]} um/px", fill="black")
        for i, (crop, classes) in enumerate(_pairs(dataset, k, seed, per_level)):
            x, y = GAP_PX + i % COLUMNS * pair, n * block + 24 + i // COLUMNS * (SHOWN_PX + GAP_PX)
            for picture, left, how in ((crop, x, Image.Resampling.BOX), (classes, x + SHOWN_PX, Image.Resampling.NEAREST)):
                sheet.paste(Image.fromarray(picture).resize((SHOWN_PX, SHOWN_PX), how), (left, y))
    for i, (name, colour) in enumerate(legend):
        y = len(levels) * block + 10 + 18 * i
        draw.rectangle((GAP_PX, y, GAP_PX + 14, y + 14), fill=colour, outline="black")
        draw.text((GAP_PX + 22, y + 2), name, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside:
        sheet.save(beside, format="PNG")


def paint(class_map: NDArray[np.uint8], table: ClassTable) -> NDArray[np.uint8]:
    """Return a class map in the colours of its classes: uint8 ``[h, w, 3]``."""
    palette = np.zeros((UNKNOWN + 1, 3), np.uint8)
    palette[: len(table)] = [c.color for c in table]
    palette[UNKNOWN] = UNKNOWN_RGB
    return palette[class_map]


def _pairs(dataset: Dataset, level: int, seed: int, count: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    shares = [float(k == level) for k in range(len(dataset.levels))]
    batch = dataset.crops("training", dataset.settings.patch_px, seed, shares, augment=False).batch(0, count)
    return [(image, paint(classes, dataset.table)) for image, classes in zip(batch.images, batch.class_maps, strict=True)]
