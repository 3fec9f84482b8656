"""Model calls of a pass before it is made: exact on a sample of chunks, carried over to all by what a coarse class map shows.

With r_c the rows of chunk c and e_c what one would expect of it from the coarse map, both over the same sample::

    rows of the pass  =  sum of r_c over the sample / sum of e_c over the sample  *  sum of e_c over all chunks

(a ratio estimate). Chunks differ in their share of glass, their labels and the windows that fall into them; r_c / e_c hardly
differs, so that a few chunks do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.base.classes import UNKNOWN
from wsigen.base.geometry import Box
from wsigen.layout.layout import Layout
from wsigen.models.card import BundleCard
from wsigen.run.tasks.predict import calls_of_crop
from wsigen.sampling.passes import PassPlan
from wsigen.sampling.plan import centre

SAMPLED_CHUNKS = 24
"""Chunks whose crops are counted exactly."""

SAMPLED_STEPS = 4
"""Steps whose crops are counted: their number changes from step to step in some modes."""

CELLS = 8
"""Cells of the coarse class map along the side of a crop."""

Index = tuple[int, int]


class PassCalls(NamedTuple):
    """Rows of model calls of a pass (one crop under one condition is one, padding included), and the chunks that take part."""

    rows: int
    chunks: list[Index]


def count_calls(
    card: BundleCard, layout: Layout, plan: PassPlan, glass: int | None, guidance: float = 0.0, batch: int = 1
) -> PassCalls:
    """Count the model calls of one pass: exactly if it has no more than `SAMPLED_CHUNKS` chunks of tissue.

    Parameters
    ----------
    glass : int or None
        The class whose crops cost nothing, if there is one.
    guidance, batch : float, int
        Of the run: guidance takes a null pass more, and every batch is filled.
    """
    steps = _spread(plan.steps, SAMPLED_STEPS)
    expected = _expected_rows(card, layout, plan, glass, guidance, steps)
    chunks = sorted((ij for ij in plan.grid if expected[ij] > 0.0), key=lambda ij: (expected[ij], ij))
    if not chunks:
        return PassCalls(0, [])
    picks = [chunks[k] for k in _spread(len(chunks), SAMPLED_CHUNKS)]
    counted = sum(calls_of_chunk(card, layout, plan, ij, steps, glass, guidance, batch) for ij in picks)
    share = sum(expected[ij] for ij in picks) / sum(expected[ij] for ij in chunks)
    return PassCalls(round(counted / share * plan.steps / len(steps)), chunks)


def calls_of_chunk(
    card: BundleCard,
    layout: Layout,
    plan: PassPlan,
    ij: Index,
    steps: list[int],
    glass: int | None,
    guidance: float,
    batch: int,
) -> int:
    """Rows of model calls of one chunk in some steps, padding included; its class map, dear if it is drawn, is read once."""
    chunk = plan.grid.box(ij)
    inside = chunk.dilate(plan.side // 2).intersect(plan.grid.canvas)
    classes = layout.class_map(inside, plan.cell_px)
    told = None if plan.grid_from == "none" else np.zeros((1, 1, 1), np.float32)  # any grid: its numbers decide no calls
    total = 0
    for step in steps:
        windows = [classes[c.box.relative_to(inside).slices] for c in plan.crop_plan().crops(step, chunk)]
        rows = sum(len(calls_of_crop(card, w, guidance, told)) for w in windows if glass is None or (w != glass).any())
        total += -(-rows // batch) * batch
    return total


def _expected_rows(
    card: BundleCard, layout: Layout, plan: PassPlan, glass: int | None, guidance: float, steps: list[int]
) -> NDArray[np.float64]:
    """Rows of all ``steps`` per chunk ``(I, J)``, up to one factor, as a coarse class map shows them.

    Windows of a lattice lie where they lie; random ones as densely everywhere, so that every cell stands for one.
    """
    cell = max(1, plan.side // CELLS)
    canvas = plan.grid.canvas
    coarse = layout.class_map(Box(0, 0, -(-canvas.height // cell), -(-canvas.width // cell)), plan.cell_px * cell)
    around = min(CELLS, *coarse.shape)
    rows = _rows_of_crops(card, coarse, glass, guidance, around, plan.grid_from != "none")
    expected = np.zeros((plan.grid.rows, plan.grid.columns))
    if plan.mode == "random-patch":
        ys, xs = (np.arange(extent) for extent in coarse.shape)
        chunks = np.ix_(ys * cell // plan.chunk, xs * cell // plan.chunk)
        np.add.at(expected, chunks, _inside(rows, around))
        return expected
    crop_plan = plan.crop_plan()
    for step in steps:
        ys, xs = np.array([centre(crop.box) for crop in crop_plan.crops(step, canvas)]).T
        np.add.at(expected, (ys // plan.chunk, xs // plan.chunk), rows[ys // cell, xs // cell])
    return expected


def _rows_of_crops(
    card: BundleCard, coarse: NDArray[np.uint8], glass: int | None, guidance: float, side: int, told_grid: bool
) -> NDArray[np.float64]:
    """Model calls of a crop of ``side`` cells around every cell."""

    def near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(ndimage.maximum_filter(mask, side, mode="nearest"))

    labels = [int(value) for value in np.unique(coarse)]
    tissue = near(coarse != glass) if glass is not None else np.ones(coarse.shape, dtype=bool)
    if card.conditioning.kind in ("class-map", "none"):
        known = np.asarray(tissue, dtype=np.float64)
        by_channels = card.grid is not None and card.grid.told == "channels"  # which the null pass sees, too
        unknown = card.conditioning.kind == "none" and (not told_grid or by_channels)
        return known if guidance == 0.0 or unknown else 2.0 * known
    background = {i for i, c in enumerate(card.classes) if c.background}
    calls = sum(
        (near(coarse == label).astype(np.float64) for label in labels if label not in background), np.zeros(coarse.shape)
    )
    null = near(coarse == UNKNOWN) if UNKNOWN in labels else np.zeros(coarse.shape, dtype=bool)
    return np.where(tissue, np.maximum(calls, 1.0) + (~null if guidance else 0.0), 0.0)


def _inside(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """What crops that would leave the canvas show: they are moved inside."""
    ys, xs = (np.clip(np.arange(extent), side // 2, extent - -(-side // 2)) for extent in values.shape)
    return values[np.ix_(ys, xs)]


def _spread(count: int, most: int) -> list[int]:
    """At most so many of ``0 .. count - 1``, evenly spread."""
    return sorted({round(k) for k in np.linspace(0, count - 1, most)})
