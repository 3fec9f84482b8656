"""One row of the comparison: what a process of its own does, in turns that are timed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import wsigen
from benchmarks.bundles import one_class
from benchmarks.processes import peak_rss
from benchmarks.quality import window_seams
from wsigen.run.engine.stage import Stage

MODES = ("shifted", "random-patch", "pathup")
PANORAMA, ONE_CROP = "panorama", "one crop"
GUIDANCE = 0.5

PART = {PANORAMA: 12, ONE_CROP: 8}
"""Windows of a turn of the peers: a step of theirs is long, and all its windows cost the same."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What was done in a turn: wall and CPU seconds, denoising steps of the canvas (mostly a part of one), crops."""

    wall: float
    cpu: float
    steps: float
    rows: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a process does.

    Attributes
    ----------
    name : a mode of wsigen, or a peer
    model, layout, folder : the bundle, the drawing, and where slides go
    size, steps : side of the slide in px, transitions of the sampler
    turns : turns to work in, the canvas being decoded after them; 0: work to the end and measure the seams
    """

    name: str
    model: str
    layout: Path
    folder: Path
    size: int
    steps: int
    turns: int


Found = tuple[list[Turn], tuple[float, float]]
"""Turns; then peak memory in bytes and 0 of a job in turns, score and standard error of the seams of any other."""


class StepTimes:
    """A watcher of a run whose every step is a turn; the first one has the noise of the start in it."""

    def __init__(self, steps: int) -> None:
        self.turns: list[Turn] = []
        self._steps = steps
        self._last: tuple[float, float, int] | None = None

    def __call__(self, stage: Stage) -> None:
        """Keep a step once all its tasks are done."""
        if not stage.name.startswith("denoise"):
            return
        now, made = (perf_counter(), process_time(), stage.calls), len(self.turns)
        chunks = stage.total // (2 * self._steps + 1)
        if self._last is None:
            self._last = now
        elif made < self._steps and stage.done == chunks * (2 * made + 3):
            wall, cpu, rows = (b - a for a, b in zip(self._last, now, strict=True))
            self.turns.append(Turn(wall, cpu, 1.0, int(rows)))
            self._last = now


def work(job: Job) -> Found:
    """Do a job, in a process that does nothing else."""
    return run_wsigen(job) if job.name in MODES else run_peer(job)


def run_wsigen(job: Job) -> Found:
    """A slide by ``wsigen.generate``: one worker of one thread, one task in flight."""
    path, steps = job.folder / f"{job.name}.ome.tiff", job.turns or job.steps
    how: dict[str, Any] = {"mode": job.name, "layout": job.layout, "class_name": None, "window": 1}
    how |= {"steps": steps, "guidance": GUIDANCE, "eta": 0.0, "compression": "jpeg" if job.turns else "deflate"}
    times = StepTimes(steps)
    wsigen.generate(path, watch=times, **one_class(job.model, job.size, **how))
    if job.turns:
        return times.turns, (peak_rss(), 0.0)
    last = window_seams(path)[-1]
    return [], (last.score, last.noise)


def run_peer(job: Job) -> Found:
    """A peer's loop, and its whole canvas decoded."""
    import torch

    from benchmarks.peers.loops import Network, OneCrop, Panorama
    from wsigen.evaluation.borders import seam_scores
    from wsigen.evaluation.seams import edges

    torch.set_num_threads(1)
    with torch.inference_mode():
        network = Network(Path(job.model), job.steps)
        factor = network.card.latent.factor
        latents = network.start(job.size // factor, job.size // factor, 0)
        kind = Panorama if job.name == PANORAMA else OneCrop
        loop = kind(network, latents, torch.from_numpy(_class_map(job, factor)), GUIDANCE)
        windows, turns = loop.run(), []
        for _ in range(job.turns):
            wall, cpu = perf_counter(), process_time()
            done = [next(windows) for _ in range(PART[job.name])]
            spent = perf_counter() - wall, process_time() - cpu
            turns.append(Turn(*spent, sum(w.share for w in done), sum(w.rows for w in done)))
        if not job.turns:
            list(windows)
        picture = network.decode(loop.latents)
    if job.turns:
        return turns, (peak_rss(), 0.0)
    size = (job.size, job.size)
    found = seam_scores(lambda box: picture[box.slices], size, {"windows": edges(loop.crops, factor, size)})[0]
    return [], (found.score, found.noise)


def _class_map(job: Job, factor: int) -> Any:
    """The class map that wsigen makes of the drawing, int64 ``[extent, extent]``, of ``factor`` px a cell."""
    import numpy as np

    from wsigen.base.geometry import Box
    from wsigen.models.card import read_card
    from wsigen.run.choose_layout import choose_layout
    from wsigen.run.config import make_config

    config = make_config({"layout": job.layout, "size": (job.size, job.size), "model": job.model})
    card = read_card(Path(job.model))
    layout = choose_layout(config, Path(job.model), card.table, card.levels[0].mpp or 1.0).layout
    return layout.class_map(Box(0, 0, job.size // factor, job.size // factor), factor).astype(np.int64)
