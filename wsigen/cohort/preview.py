"""The contact sheet of a cohort's layouts, before a model is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ConfigError, OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.cohort.check import Needs, check_slides
from wsigen.cohort.plan import CohortPlan, read_plan
from wsigen.cohort.slides import CohortSlide, slides_of
from wsigen.dataset.summary import paint
from wsigen.layout.layout import Layout
from wsigen.run.choose_layout import choose_layout
from wsigen.slide.sidecars import demand_picture_name, write_picture

SHOWN_PX, GAP_PX, TEXT_PX, COLUMNS = 200, 10, 15, 6
"""Longest side of a layout on the sheet, the gap around it, a line of text under it, layouts in a row."""

LINES = 3


def preview_cohort(plan: str | Path | CohortPlan, output: str | Path, *, slides: int = 24) -> list[CohortSlide]:
    """Draw the layouts, sizes and subtypes of a cohort's first slides.

    Parameters
    ----------
    plan : str, Path or CohortPlan
        The plan.
    output : str or Path
        The picture, PNG or JPEG.
    slides : int
        How many of them at most, in equal numbers from all parts.

    Returns
    -------
    list of CohortSlide
        Those that are shown.

    Raises
    ------
    WsigenError
        One line for whatever is wrong with the plan or the picture's name.

    Examples
    --------
    >>> wsigen.preview_cohort("plan.yaml", "layouts.png")
    """
    if slides < 1:
        raise ConfigError(f"slides: {slides}; show one at least")
    demand_picture_name(output)
    source = str(plan) if isinstance(plan, str | Path) else plan.name
    plan = plan if isinstance(plan, CohortPlan) else read_plan(plan)
    made = slides_of(plan, source)
    needs = check_slides(made, source)
    shown = first_of_each_part(made, slides)
    with refusing(OutputError, f"{output}: cannot be written", "choose another name"):
        _write(Path(output), shown, needs)
    return shown


def first_of_each_part(slides: list[CohortSlide], most: int) -> list[CohortSlide]:
    """The first slides of every part, in equal numbers as far as there are some; in the plan's order."""
    parts: dict[str, list[CohortSlide]] = {}
    for slide in slides:
        parts.setdefault(slide.part, []).append(slide)
    turns = [slide for row in range(most) for part in parts.values() for slide in part[row : row + 1]][:most]
    chosen = {slide.id for slide in turns}
    return [slide for slide in slides if slide.id in chosen]


def small_map(layout: Layout, side: int) -> NDArray[np.uint8]:
    """A class map whose longer side has at most ``side`` cells, uint8 ``(h, w)``."""
    cell = max(1, -(-max(layout.height, layout.width) // side))
    return layout.class_map(Box(0, 0, -(-layout.height // cell), -(-layout.width // cell)), cell)


def _write(path: Path, slides: list[CohortSlide], needs: Needs) -> None:
    from PIL import Image, ImageDraw, ImageFont

    columns = min(COLUMNS, len(slides))
    across, down = SHOWN_PX + GAP_PX, SHOWN_PX + GAP_PX + LINES * TEXT_PX
    rows = -(-len(slides) // columns)
    widths = [40 + int(ImageFont.load_default().getlength(tissue.name)) for tissue in needs.table]
    sheet = Image.new("RGB", (max(columns * across, sum(widths)) + GAP_PX, rows * down + GAP_PX + 24), "white")
    draw = ImageDraw.Draw(sheet)
    for place, slide in enumerate(slides):
        row, column = divmod(place, columns)
        x, y = GAP_PX + column * across, GAP_PX + row * down
        chosen = choose_layout(slide.config, needs.models[slide.model].folder, needs.table, needs.mpp)
        picture = Image.fromarray(paint(small_map(chosen.layout, SHOWN_PX), needs.table))
        sheet.paste(picture, (x, y))
        draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline="grey")
        for line, text in enumerate(_caption(slide, chosen.layout)):
            draw.text((x, y + SHOWN_PX + 2 + line * TEXT_PX), text, fill="black")
    x, y = GAP_PX, rows * down + GAP_PX
    for tissue, width in zip(needs.table, widths, strict=True):
        draw.rectangle((x, y, x + 14, y + 14), fill=tissue.color, outline="black")
        draw.text((x + 20, y + 1), tissue.name, fill="black")
        x += width
    write_picture(path, np.asarray(sheet))


def _caption(slide: CohortSlide, layout: Layout) -> tuple[str, str, str]:
    how = f"{slide.mode}, {slide.stain}" if slide.stain != "model" else slide.mode
    return slide.id[-32:], f"{slide.subtype}, {slide.split}", f"{layout.width}x{layout.height}, {how}"
