"""One row of the comparison in a process of its own, and turns, so that what is compared is measured side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
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

Found = tuple[float, float]
"""In the end: peak memory in bytes and 0 of a job in turns; score and standard error of the seams of any other."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a process did in its turn: wall and CPU seconds, denoising steps of the canvas (mostly a part of one), crops."""

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


class Player:
    """The end of the process that works: it waits for its turn, works, and tells. Of no turns it does neither."""

    def __init__(self, line: Connection, turns: bool) -> None:
        self._line, self._turns = line, turns
        self._wall = self._cpu = 0.0

    def wait(self) -> None:
        """Wait until it is our turn; the process ends if nobody will ever say so."""
        if self._turns:
            try:
                self._line.recv()
            except EOFError:
                raise SystemExit(1) from None
        self._wall, self._cpu = perf_counter(), process_time()

    def tell(self, steps: float, rows: int) -> None:
        """Say what was done since."""
        if self._turns:
            self._line.send(Turn(perf_counter() - self._wall, process_time() - self._cpu, steps, rows))


class Worker:
    """The other end: a new Python process that does a job."""

    def __init__(self, job: Job) -> None:
        context = get_context("spawn")
        self._name = job.name
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def turn(self) -> Turn:
        """Let it work once."""
        self.go()
        turn: Turn = self._read()
        return turn

    def go(self) -> None:
        """Let it work without waiting for it."""
        self._line.send("go")

    def end(self) -> Found:
        """Wait for what it found (RuntimeError if it died)."""
        found: Found = self._read()
        self._process.join()
        return found

    def stop(self) -> None:
        """End it, finished or not."""
        self._process.kill()
        self._process.join()

    def _read(self) -> Any:
        try:
            return self._line.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise RuntimeError(f"{self._name}: ended with exit code {self._process.exitcode} before it was done") from None


def work(job: Job, line: Connection) -> None:
    """Do a job and say what was found."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run: Callable[[Job, Player], Found] = run_wsigen if job.name in MODES else run_peer
    line.send(run(job, Player(line, job.turns > 0)))


class StepTurns:
    """A watcher of a run whose every step is a turn; the first one has the noise of the start in it."""

    def __init__(self, player: Player, steps: int) -> None:
        self._player, self._steps = player, steps
        self._told, self._rows = -1, 0

    def __call__(self, stage: Stage) -> None:
        """Tell of a step once all its tasks are done, and wait before the next."""
        if not stage.name.startswith("denoise"):
            return
        chunks = stage.total // (2 * self._steps + 1)
        if self._told < 0 or (self._told < self._steps and stage.done == chunks * (2 * self._told + 3)):
            if self._told >= 0:
                self._player.tell(1.0, stage.calls - self._rows)
                self._rows = stage.calls
            self._told += 1
            self._player.wait()


def run_wsigen(job: Job, player: Player) -> Found:
    """A slide by ``wsigen.generate``: one worker of one thread, one task in flight, so that nothing runs between turns."""
    path, steps = job.folder / f"{job.name}.ome.tiff", job.turns or job.steps
    how: dict[str, Any] = {"mode": job.name, "layout": job.layout, "class_name": None, "window": 1}
    how |= {"steps": steps, "guidance": GUIDANCE, "eta": 0.0, "compression": "jpeg" if job.turns else "deflate"}
    wsigen.generate(path, watch=StepTurns(player, steps), **one_class(job.model, job.size, **how))
    if job.turns:
        return peak_rss(), 0.0
    last = window_seams(path)[-1]
    return last.score, last.noise


def run_peer(job: Job, player: Player) -> Found:
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
        windows = loop.run()
        for _ in range(job.turns):
            player.wait()
            done = [next(windows) for _ in range(PART[job.name])]
            player.tell(sum(w.share for w in done), sum(w.rows for w in done))
        if job.turns:
            player.wait()
        else:
            list(windows)
        picture = network.decode(loop.latents)
    if job.turns:
        return peak_rss(), 0.0
    size = (job.size, job.size)
    found = seam_scores(lambda box: picture[box.slices], size, {"windows": edges(loop.crops, factor, size)})[0]
    return found.score, found.noise


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
