"""A contact sheet: random crops beside their class maps, to look at what a model is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.dataset.batch import CELL_PX
from wsigen.models.card import Level
from wsigen.storage.files import atomic_path

if TYPE_CHECKING:
    from wsigen.dataset.dataset import Dataset, Split

U8 = NDArray[np.uint8]
UNKNOWN_RGB = (70, 70, 70)
"""Colour of what nobody labelled."""
SHOWN_PX, GAP_PX, COLUMNS = 192, 6, 4


def write_sheet(dataset: Dataset, path: Path, seed: int = 0, per_level: int = 16) -> None:
    """Write a PNG: for each level that has training patches ``per_level`` pairs of crop and map, and a legend."""
    from PIL import Image, ImageDraw

    rows = [
        (f"{level.name}, {level.mpp} um/px", _pairs(dataset, "training", k, seed, per_level)) for k, level in _used(dataset)
    ]
    width = COLUMNS * (2 * SHOWN_PX + 2 * GAP_PX) + GAP_PX
    block = -(-per_level // COLUMNS) * (SHOWN_PX + GAP_PX) + 24
    sheet = Image.new("RGB", (width, len(rows) * block + 28 + 18 * (len(dataset.table) + 1)), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for n, (title, pairs) in enumerate(rows):
        draw.text((GAP_PX, n * block + 6), title, fill=(0, 0, 0))
        for i, pair in enumerate(pairs):
            row, column = divmod(i, COLUMNS)
            left = GAP_PX + column * (2 * SHOWN_PX + 2 * GAP_PX)
            for k, picture in enumerate(pair):
                how = Image.Resampling.BOX if k == 0 else Image.Resampling.NEAREST
                shown = Image.fromarray(picture).resize((SHOWN_PX, SHOWN_PX), how)
                sheet.paste(shown, (left + k * SHOWN_PX, n * block + 24 + row * (SHOWN_PX + GAP_PX)))
    top = len(rows) * block + 10
    for i, (name, color) in enumerate([*((c.name, c.color) for c in dataset.table), ("not labelled", UNKNOWN_RGB)]):
        draw.rectangle((GAP_PX, top + 18 * i, GAP_PX + 14, top + 18 * i + 14), fill=color, outline=(0, 0, 0))
        draw.text((GAP_PX + 22, top + 18 * i + 2), name, fill=(0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside:
        sheet.save(beside, format="PNG")


def colour(class_map: U8, table: ClassTable) -> U8:
    """Paint a class map: uint8 ``[h, w, 3]``."""
    palette = np.zeros((UNKNOWN + 1, 3), np.uint8)
    palette[: len(table)] = [c.color for c in table]
    palette[UNKNOWN] = UNKNOWN_RGB
    return palette[class_map]


def _used(dataset: Dataset) -> list[tuple[int, Level]]:
    levels = set(dataset.split_patches("training").level.tolist())
    return [(k, level) for k, level in enumerate(dataset.levels) if k in levels]


def _pairs(dataset: Dataset, split: Split, level: int, seed: int, count: int) -> list[tuple[U8, U8]]:
    shares = [float(k == level) for k in range(len(dataset.levels))]
    batch = dataset.crops(split, dataset.settings.patch_px, seed, shares, augment=False).batch(0, count)
    big = [np.kron(m, np.ones((CELL_PX, CELL_PX), np.uint8)) for m in batch.class_maps]
    return [(image, colour(m, dataset.table)) for image, m in zip(batch.images, big, strict=True)]
