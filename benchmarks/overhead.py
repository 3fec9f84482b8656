"""Wall time of denoising over a bare loop of as many equal model calls.

One worker, one thread, one task in flight, so that nothing runs while the watcher is called: after every denoise task the
watcher makes the same number of bare calls itself. What is compared is thus measured seconds apart, as load and clock rates
change within a minute. The value is the median over the steps.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter, process_time

import numpy as np

import wsigen
from benchmarks.bundles import one_class, tissues
from benchmarks.figure import Figure, Options, Spent, spread
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.models.conditioning import conditions_of
from wsigen.run.engine.stage import Stage
from wsigen.run.tasks.context import load_shared_model

SIZE_PX, QUICK_PX = 4096, 1024
BATCH, WARM_CALLS = 4, 6
TARGET = 1.05


class BareLoop:
    """Model calls of the shape the run makes, and nothing else, in a thread of their own as the run's are."""

    def __init__(self, model: str) -> None:
        import torch

        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        folder = find_bundle(model)
        card = check_bundle(folder)
        self._model = load_shared_model(str(folder.absolute()), "cpu", "fp32")
        side = card.crop_latent
        shape = (BATCH, card.latent.channels, side, side)
        self._latents = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        classes = np.full((side, side), card.table.index(tissues(model)[0]), dtype=np.uint8)
        self._conditions = [conditions_of(card, classes)[0][0]] * BATCH

    def run(self, calls: int) -> Spent:
        """Make ``calls`` calls."""
        return self._thread.submit(self._run, calls).result()

    def _run(self, calls: int) -> Spent:
        with Spent() as spent:
            for _ in range(calls):
                self._model.predict(self._latents, 500, self._conditions, 0)
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

    def __init__(self, bare: BareLoop) -> None:
        self._bare = bare
        bare.run(2)
        self._rate = bare.run(WARM_CALLS).wall / WARM_CALLS
        self._seen = self._step = 0.0
        self._cpu: float | None = None
        self.ratios: list[float] = []
        self.run, self.loop = Spent(), Spent()
        self.calls = self.rows = 0

    def __call__(self, stage: Stage) -> None:
        """Add up a task; if it called the model, call it as often."""
        if not stage.name.startswith("denoise"):
            return
        passed, self._seen = stage.seconds - self._seen, stage.seconds
        self._step += passed
        self.run.wall += passed
        self.run.cpu += process_time() - self._cpu if self._cpu is not None else 0.0
        rows, self.rows = stage.calls - self.rows, stage.calls
        if rows:
            begin = perf_counter()
            self._follow(math.ceil(rows / BATCH))
            self._seen += perf_counter() - begin
        self._cpu = process_time()

    def _follow(self, calls: int) -> None:
        spent = self._bare.run(calls)
        before, self._rate = self._rate, spent.wall / calls
        self.ratios.append(self._step / (calls * (before + self._rate) / 2))
        self._step = 0.0
        self.calls += calls
        self.loop.wall += spent.wall
        self.loop.cpu += spent.cpu


def measure(options: Options) -> Figure:
    size = QUICK_PX if options.quick else SIZE_PX
    bare = BareLoop(options.model)
    watch = Interleaved(bare)
    how = one_class(options.model, size, steps=5 if options.quick else 8, guidance=1.0, batch=BATCH, window=1)
    wsigen.generate(options.folder / "overhead.ome.tiff", watch=watch, **how)
    detail = (
        f"{spread(watch.ratios)} over the steps; all steps: wall {watch.run.wall / watch.loop.wall:.3f}, "
        f"CPU {watch.run.cpu / watch.loop.cpu:.3f}; {watch.calls} calls of {BATCH} crops, "
        f"{watch.rows / (BATCH * watch.calls):.0%} full, {1000 * watch.loop.wall / watch.calls:.0f} ms each"
    )
    what = f"denoising of a {size} px slide over a bare loop of as many equal model calls, wall time"
    return Figure("overhead", what, median(watch.ratios), TARGET, detail)
