"""How much of the time an accelerator computes, while every key that is read or written takes as long as one of its calls.

The accelerator is a stand-in that sleeps, and so is the store (one far away, say): calls of a small model and all accesses to
keys of the state are drawn out to 20 ms. Time counts from the first model call to the end of the last one, for one task at once
and for two; a chunk's step has some 45 calls and 25 accesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from time import perf_counter, sleep
from typing import Any
from unittest.mock import patch

import wsigen
from benchmarks.bundles import make_bundle, one_class
from benchmarks.figure import Figure, Options
from wsigen.models.model import Model
from wsigen.run.store import PassState

SLOW_S = 0.02
CROP, CHUNK, BATCH = 16, 96, 1
SIZE_PX, QUICK_PX, STEPS = 4096, 3072, 2
TARGET = 0.85

ACCESSES = ("_checked", "write_latents", "write_partial", "write_history")


class Busy:
    """Seconds in model calls, and from the beginning of the first to the end of the last."""

    def __init__(self) -> None:
        self._lock, self._calls = Lock(), 0.0
        self._first = self._last = 0.0

    def slow(self, predict: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, no shorter than ``SLOW_S``."""

        def call(*args: Any) -> Any:
            begin = perf_counter()
            made = predict(*args)
            sleep(max(0.0, begin + SLOW_S - perf_counter()))
            with self._lock:
                self._first, self._last = self._first or begin, perf_counter()
                self._calls += self._last - begin
            return made

        return call

    @property
    def share(self) -> float:
        """Of the time, that was in calls."""
        return self._calls / (self._last - self._first)


@contextmanager
def slowed() -> Iterator[Busy]:
    """Draw out model calls and accesses to the state within."""
    busy = Busy()
    with ExitStack() as patched:
        patched.enter_context(patch.object(Model, "predict", busy.slow(Model.predict)))
        for name in ACCESSES:
            patched.enter_context(patch.object(PassState, name, _after_a_while(getattr(PassState, name))))
        yield busy


def _after_a_while(access: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any) -> Any:
        sleep(SLOW_S)
        return access(*args)

    return slow


def measure(options: Options) -> Figure:
    bundle = make_bundle(options.folder / "bundle", widths=(8,), decoder_width=4, crop=CROP)
    size = QUICK_PX if options.quick else SIZE_PX
    found = {}
    for tasks in (1, 2):
        with slowed() as busy:
            settings = one_class(bundle, size, steps=STEPS, guidance=0.0, chunk=CHUNK, batch=BATCH, tasks_at_once=tasks)
            wsigen.generate(options.folder / "overlap.ome.tiff", **settings)
        found[tasks] = busy.share
    detail = f"{size} px, {STEPS} steps, {1000 * SLOW_S:.0f} ms a call and an access; one task at once: {found[1]:.2f}"
    what = "time in model calls over all time of denoising, two tasks at once in one worker"
    return Figure("overlap", what, found[2], 1.0, detail, floor=TARGET)
