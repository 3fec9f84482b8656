"""What a pass has before its first task, and what is found damaged: deleted, or made again where no task makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from wsigen.base.errors import DamagedChunkError
from wsigen.layout.layout import Layout
from wsigen.run.engine.dispatch import TRIES, Dispatcher
from wsigen.run.prepare import class_map_of_chunk
from wsigen.run.store import place_of_key
from wsigen.run.tasks.context import PassContext, RunContext

T = TypeVar("T")


def prepare_pass(run: RunContext, part: PassContext, layout: Layout) -> None:
    """Make a pass's arrays and write its class map; done once, marked by the activity written last."""
    plan = part.plan
    channels = len(run.manifest.glass["latent"])
    history = run.manifest.sampling["sampler"] == "dpm++"
    if run.store.has_pass(plan.index):
        run.store.restore_metadata(plan.index, plan.grid, channels, plan.steps, plan.side, history)
        return
    state = run.store.create_pass(plan.index, plan.grid, channels, plan.steps, plan.side, history)
    _write_classes(part, layout)
    state.write_activity(_activity(run, part))


def with_repairs(dispatcher: Dispatcher, layout: Layout, work: Callable[[], T]) -> T:
    """Do ``work``; what it finds damaged is deleted and made again, each thing at most twice."""
    damages: Counter[str] = Counter()
    while True:
        try:
            return work()
        except DamagedChunkError as damage:
            damages[damage.key] += 1
            if damages[damage.key] >= TRIES:
                raise
            dispatcher.notes.add("damage", f"{damage}; it is made again")
            dispatcher.drain()
            _repair(dispatcher.run, layout, damage.key)


def _repair(run: RunContext, layout: Layout, key: str) -> None:
    """Delete a damaged key, so that the stage that makes it finds it missing; what no stage makes is made here."""
    block = run.spool.place_of(key)
    if block is not None:
        run.spool.discard(block)
        run.spool.discard_damaged()  # a power cut takes many at a time
        return
    index, once, half_step, ij = place_of_key(key)
    part = run.passes[index]
    if once == "norm":
        part.state.delete_norm()
    elif once == "classes":
        _write_classes(part, layout)
    elif once == "activity":
        part.state.write_activity(_activity(run, part))
    else:
        part.state.delete(half_step, ij)


def _write_classes(part: PassContext, layout: Layout) -> None:
    for ij in part.plan.grid:
        part.state.write_classes(ij, class_map_of_chunk(layout, part.plan, ij))


def _activity(run: RunContext, part: PassContext) -> np.ndarray:
    """Which chunks have a pixel to denoise in them or within half a crop of them."""
    from wsigen.run.tasks.state import held_pixels

    grid = part.plan.grid
    active = np.zeros((grid.rows, grid.columns), dtype=bool)
    for ij in grid:
        reach = grid.box(ij).dilate(part.state.margin).intersect(grid.canvas)
        active[ij] = not held_pixels(run, part, reach).all()
    return active
