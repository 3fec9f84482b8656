"""What a pass has before its first task, and the repair of what is damaged: deleted, or made again where no task makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from wsigen.base.errors import DamagedChunkError
from wsigen.layout.layout import Layout
from wsigen.run.continued import Continued
from wsigen.run.engine.dispatch import TRIES, Dispatcher
from wsigen.run.keys import place_of_key
from wsigen.run.prepare import class_map_of_chunk
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.sampling.known import NEVER

T = TypeVar("T")


def prepare_pass(pass_: PassContext, layout: Layout, continued: Continued | None) -> None:
    """Make a pass's arrays and write its class map and what stays; done once, marked by the activity written last."""
    store = pass_.run.store
    if store.has_pass(pass_.plan.index):
        store.restore_metadata(pass_.arrays)
        return
    state = store.create_pass(pass_.arrays)
    _write_classes(pass_, layout)
    if continued is not None:
        _write_starts(pass_, continued)
    state.write_activity(_activity(pass_))


def with_repairs(dispatcher: Dispatcher, layout: Layout, continued: Continued | None, work: Callable[[], T]) -> T:
    """Do ``work``; what it finds damaged is deleted and made again, each thing at most twice.

    What a repair reads may be damaged as well: it is repaired first.
    """
    damages: Counter[str] = Counter()
    waiting: list[str] = []
    while True:
        try:
            while waiting:
                _repair(dispatcher.run, layout, continued, waiting[-1])
                waiting.pop()
            return work()
        except DamagedChunkError as damage:
            damages[damage.key] += 1
            if damages[damage.key] >= TRIES:
                raise
            dispatcher.notes.add("damage", f"{damage}; it is made again")
            dispatcher.drain()
            waiting.append(damage.key)


def _repair(run: RunContext, layout: Layout, continued: Continued | None, key: str) -> None:
    """Delete a damaged key, so that the stage that makes it finds it missing; what no stage makes is made here."""
    block = run.spool.place_of(key)
    if block is not None:
        run.spool.discard(block)
        run.spool.discard_damaged()  # a power cut takes many at a time
        return
    index, once, half_step, ij = place_of_key(key)
    pass_ = run.passes[index]
    if once == "norm":
        pass_.state.delete_norm()
    elif once == "classes":
        _write_classes(pass_, layout)
    elif once == "starts" and continued is not None:
        _write_starts(pass_, continued)
    elif once == "known":
        pass_.state.delete_known(ij)
    elif once == "activity":
        pass_.state.write_activity(_activity(pass_))
    else:
        pass_.state.delete(half_step, ij)


def _write_classes(pass_: PassContext, layout: Layout) -> None:
    for ij in pass_.plan.grid:
        pass_.state.write_classes(ij, class_map_of_chunk(layout, pass_.plan, ij))


def _write_starts(pass_: PassContext, continued: Continued) -> None:
    glass = pass_.run.spec.glass.index
    for ij in pass_.plan.grid:
        classes = pass_.state.read_classes(pass_.plan.grid.box(ij))
        bare = np.zeros(classes.shape, dtype=bool) if glass is None else classes == glass
        pass_.state.write_starts(ij, continued.starts(pass_.plan, pass_.plan.grid.box(ij), bare))


def _activity(pass_: PassContext) -> np.ndarray:
    """Which chunks have a pixel to denoise in them or within half a crop of them, bool ``(I, J)``."""
    grid = pass_.plan.grid
    active = np.zeros((grid.rows, grid.columns), dtype=bool)
    for ij in grid:
        reach = grid.box(ij).dilate(pass_.state.margin).intersect(grid.canvas)
        active[ij] = bool((pass_.starts(reach) < NEVER).any())
    return active
