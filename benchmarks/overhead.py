"""Wall time of all passes, of the grid and of the slide, over a bare loop of as many equal model calls.

One worker, one thread, one task in flight, so that nothing runs while the watcher is called: after every denoise task the
watcher makes the same number of bare calls itself. What is compared is thus measured seconds apart, as load and clock rates
change within a minute. The value is the median over the steps.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

import wsigen
from benchmarks.bundles import one_class
from benchmarks.figure import Figure, Options, Spent, spread
from wsigen.models.conditioning import conditions_of
from wsigen.run.engine.stage import Stage
from wsigen.run.tasks.context import PassContext, RunContext

SIZE_PX, QUICK_PX = 4096, 1024
BATCH, WARM_CALLS = 4, 6
TARGET = 1.05

PASSES = ("draw the grid", "denoise")
"""What the names of stages begin with that call a network of the model: those of the grid, and of the slide."""


class BareLoop:
    """Calls of a pass's network, of its shape and conditions, and nothing else, in a thread of their own."""

    def __init__(self, pass_: PassContext) -> None:
        import torch

        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._model, self._level = pass_.denoiser, pass_.plan.level
        self.batch = pass_.sampling.batch
        crop = next(iter(pass_.crop_plan.crops(0, pass_.plan.grid.box((0, 0))))).box
        (condition, _), *_ = conditions_of(self._model.card, pass_.state.read_classes(crop), pass_.grid_windows([crop])[0])
        shape = (self.batch, len(pass_.glass), *crop.shape)
        self._latents = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        self._conditions = [condition] * self.batch
        self.run(WARM_CALLS)

    def run(self, calls: int) -> Spent:
        """Make ``calls`` calls."""
        return self._thread.submit(self._run, calls).result()

    def close(self) -> None:
        """End its thread."""
        self._thread.shutdown()

    def _run(self, calls: int) -> Spent:
        with Spent() as spent:
            for _ in range(calls):
                self._model.predict(self._latents, 500, self._conditions, self._level)
        return spent


class Interleaved:
    """A watcher that follows every denoise task with its bare loop, and leaves its own time out of the run's.

    Attributes
    ----------
    ratios:
        For every step: its wall time (with the assembling before it) over the mean of the bare loops before and after.
    run, loop:
        Sums over all steps.
    calls, rows:
        Model calls made by the run, and the crops in them: the last call of a task is padded.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stages: list[str] = []
        self._bare: BareLoop | None = None
        self._rate = self._seen = self._step = 0.0
        self._cpu: float | None = None
        self.ratios: list[float] = []
        self.run, self.loop = Spent(), Spent()
        self.calls = self.rows = self._before = 0

    def __call__(self, stage: Stage) -> None:
        """Add up a task; if it called the model, call it as often."""
        if not stage.name.startswith(PASSES):
            return
        if stage.name not in self._stages:
            self._next_pass(stage)
        passed, self._seen = stage.seconds - self._seen, stage.seconds
        self._step += passed
        self.run.wall += passed
        self.run.cpu += process_time() - self._cpu if self._cpu is not None else 0.0
        rows, self._before = stage.calls - self._before, stage.calls
        self.rows += rows
        if rows and self._bare:
            begin = perf_counter()
            self._follow(self._bare, math.ceil(rows / self._bare.batch))
            self._seen += perf_counter() - begin
        self._cpu = process_time()

    def _next_pass(self, stage: Stage) -> None:
        """Passes go one after another; the grid that one is told is there once it begins."""
        begin = perf_counter()
        if self._bare:
            self._bare.close()
        self._bare = BareLoop(RunContext(self._run_dir).passes[len(self._stages)])
        self._stages.append(stage.name)
        self._rate = self._bare.run(WARM_CALLS).wall / WARM_CALLS  # the calls before warm it up
        self._seen, self._step, self._before, self._cpu = perf_counter() - begin, 0.0, 0, process_time()

    def _follow(self, bare: BareLoop, calls: int) -> None:
        spent = bare.run(calls)
        before, self._rate = self._rate, spent.wall / calls
        self.ratios.append(self._step / (calls * (before + self._rate) / 2))
        self._step = 0.0
        self.calls += calls
        self.loop.wall += spent.wall
        self.loop.cpu += spent.cpu


def measure(options: Options) -> Figure:
    size = QUICK_PX if options.quick else SIZE_PX
    watch = Interleaved(options.folder / "overhead.run")
    how = one_class(options.model, size, steps=5 if options.quick else 8, guidance=1.0, batch=BATCH, window=1)
    wsigen.generate(options.folder / "overhead.ome.tiff", watch=watch, run_dir=options.folder / "overhead.run", **how)
    detail = (
        f"{spread(watch.ratios)} over the steps; all steps: wall {watch.run.wall / watch.loop.wall:.3f}, "
        f"CPU {watch.run.cpu / watch.loop.cpu:.3f}; {watch.calls} calls of {BATCH} crops, "
        f"{watch.rows / (BATCH * watch.calls):.0%} full, {1000 * watch.loop.wall / watch.calls:.0f} ms each"
    )
    what = f"all passes of a {size} px slide over a bare loop of as many equal model calls, wall time"
    return Figure("overhead", what, median(watch.ratios), TARGET, detail)
