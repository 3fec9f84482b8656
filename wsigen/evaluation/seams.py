"""Seams of a synthetic slide: the borders of its windows, step by step, and of its chunks, from its manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from wsigen.base.errors import EvaluationError
from wsigen.base.geometry import Box
from wsigen.base.json_file import read_json
from wsigen.base.state import parse_state
from wsigen.dataset.images import base_name
from wsigen.evaluation.borders import PERIOD, Border, SeamScore, common, merged, periodic_borders, seam_scores
from wsigen.run.manifest import Manifest
from wsigen.sampling.passes import PassPlan
from wsigen.slide.reading import ImageSource

MOST_STEPS = 8
"""Steps whose borders are measured each on their own, the last ones of a pass: later steps leave more of their borders."""

FIXED = "fixed borders (in each of these steps)"
"""Name of a group of borders."""


def read_manifest(slide: Path) -> Manifest | None:
    """Read the manifest beside a slide; None if there is none, or the JSON beside it is no manifest of ours.

    Raises
    ------
    EvaluationError
        If it cannot be read, or a field is of another type.
    """
    path = slide.with_name(f"{base_name(slide)}.json")
    if not path.is_file():
        return None
    content = read_json(path, EvaluationError, "a slide's manifest lies there: restore it, or move what is there away")
    if not isinstance(content, dict) or "passes" not in content:
        return None
    return parse_state(Manifest, json.dumps(content), f"{path}: not a manifest of this version", EvaluationError)


def borders_of(plans: Sequence[PassPlan], size: tuple[int, int]) -> dict[str, list[Border]]:
    """Borders on level 0 by what they are borders of.

    Windows of each of the last `MOST_STEPS` steps of the finest pass, those of the last step of coarser passes, and the
    chunks of every pass. A window's border is where its weights begin or end. Where windows move from step to step, borders
    that every one of these steps has (one window off the slide's edges, `plan.lattice_starts`) are a group of their own,
    `FIXED`: no later step mends them.

    Parameters
    ----------
    size : tuple of int
        ``(height, width)`` of level 0, px.
    """
    groups: dict[str, list[Border]] = {}
    for plan in plans:
        finest = plan is plans[-1]
        last = range(max(0, plan.steps - (MOST_STEPS if finest else 1)), plan.steps)
        windows = [_windows(plan, step, size) for step in last]
        for step, borders in zip(last, windows, strict=True):
            groups[f"pass {plan.index + 1}, windows of step {step + 1} of {plan.steps}"] = borders
        fixed = common(windows) if len(windows) > 1 else []
        if fixed != windows[-1]:  # else the last step says it all
            groups[f"pass {plan.index + 1}, {FIXED}"] = fixed
        groups[f"pass {plan.index + 1}, chunks"] = edges([plan.grid.box(ij) for ij in plan.grid], plan.cell_px, size)
    return {name: borders for name, borders in groups.items() if borders}


def slide_seams(reference: ImageSource, manifest: Manifest) -> list[SeamScore]:
    """Measure the seams of a slide at full resolution.

    Raises
    ------
    EvaluationError
        If the manifest is that of another slide.
    """
    size = (reference.height, reference.width)
    stated = (manifest.slide.height, manifest.slide.width)
    if stated != size:
        raise EvaluationError(f"{reference.path}: {size} px, but the manifest beside it says {stated}; it is another slide's")
    return seam_scores(lambda box: reference.region(box, size), size, borders_of(manifest.passes, size))


def check_period(period: int) -> None:
    """Refuse borders that lie so close that there is no place to compare them with (EvaluationError)."""
    if period < 2 * PERIOD:
        raise EvaluationError(f"borders every {period} px leave no place to compare with; {2 * PERIOD} px is the least")


def periodic_seams(reference: ImageSource, period: int) -> list[SeamScore]:
    """Measure borders every ``period`` px of any image at full resolution (see `check_period`)."""
    check_period(period)
    size = (reference.height, reference.width)
    return seam_scores(lambda box: reference.region(box, size), size, {f"every {period} px": periodic_borders(size, period)})


def _windows(plan: PassPlan, step: int, size: tuple[int, int]) -> list[Border]:
    crops = plan.crop_plan().crops(step, Box(0, 0, plan.height, plan.width))
    return edges([crop.box for crop in crops], plan.cell_px, size)


def edges(boxes: list[Box], cell_px: int, size: tuple[int, int]) -> list[Border]:
    """The edges of boxes of latent pixels, on level 0 and within it."""
    height, width = size
    borders = []
    for box in boxes:
        b = box.scale(cell_px)
        rows, columns = (b.y0, min(b.y1, height)), (b.x0, min(b.x1, width))
        borders += [Border(0, y, *columns) for y in (b.y0, b.y1) if 0 < y < height]
        borders += [Border(1, x, *rows) for x in (b.x0, b.x1) if 0 < x < width]
    return merged(b for b in borders if b.start < b.stop)
