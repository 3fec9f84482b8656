"""Draw the sheet of docs/sampled-layouts.md: every subtype of the default model, four seeds each.

::

    python examples/layouts.py docs/sampled-layouts.png
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image, ImageDraw

from wsigen.base.geometry import Box
from wsigen.layout.sampled import sample_layout
from wsigen.layout.subtypes import known_subtypes
from wsigen.models.bundle import DEFAULT_FOLDER
from wsigen.models.card import read_card

SIZES = ((14_000, 20_000), (14_000, 20_000), (20_000, 20_000), (20_000, 14_000))
SIDE, LABEL, CELL, FINER = 200, 16, 100, 4
"""Sides of a picture and of its title, px of the sheet; slide px of such a px, whose colour is the mean of FINER x FINER."""


def main(path: str) -> None:
    """Write the sheet."""
    card = read_card(DEFAULT_FOLDER)
    table = card.table
    colours = np.array([c.color for c in table], np.uint8)
    subtypes = known_subtypes(table)
    sheet = Image.new("RGB", (SIDE * len(SIZES), (SIDE + LABEL) * len(subtypes)), "white")
    for row, (name, subtype) in enumerate(subtypes.items()):
        top = row * (SIDE + LABEL)
        ImageDraw.Draw(sheet).text((4, top + 2), f"{name}: {subtype.title}", fill="black")
        for seed, size in enumerate(SIZES):
            layout = sample_layout(seed, size, table, table.background or 0, name, subtype, card.levels[0].mpp or 1.0)
            cell = CELL // FINER
            cells = layout.class_map(Box(0, 0, size[0] // cell, size[1] // cell), cell)
            sheet.paste(Image.fromarray(colours[cells]).reduce(FINER), (seed * SIDE, top + LABEL))
    sheet.quantize(48).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
