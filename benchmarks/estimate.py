"""What ``wsigen estimate`` says over what a run takes: seconds, peak memory and disk.

Every row is a process of its own. Memory: one slide for 1 worker and for 2 threads, and
batches of 1, 4 and 16 crops, small and large, each of one step. The figures of memory are the least and the greatest ratio.
Time: estimates and runs in turn; of each run the mean of the estimates before and after it. CPU seconds leave out what else the
machine does; the wall's are of interest where it does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import wsigen
from benchmarks.bundles import one_class
from benchmarks.document import table
from benchmarks.figure import Figure, Options, spread
from benchmarks.processes import in_process, peak_rss
from wsigen.run.engine.stage import Stage

SMALL_PX, LARGE_PX, QUICK_PX = 1024, 4096, 2048
TIMED_PX, TIMED_STEPS = 1024, 6
MEMORY, TIME = (1.0, 1.3), (0.85, 1.15)


Job = dict[str, Any]
"""Settings of `wsigen.generate` for a slide, all tissue."""

Weighed = tuple[tuple[float, float], tuple[float, float]]
"""Projected and measured bytes of memory, and of disk."""


class DiskUse:
    """A watcher that keeps the most bytes there were in a folder after any task."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.most = 0

    def __call__(self, stage: Stage) -> None:
        """Look at the folder; files may vanish meanwhile."""
        used = 0
        for path in self._folder.rglob("*"):
            try:
                used += path.stat().st_size
            except OSError:
                continue
        self.most = max(self.most, used)


def measure(options: Options) -> list[Figure]:
    sizes = (SMALL_PX, QUICK_PX) if options.quick else (SMALL_PX, LARGE_PX)
    ways = [(1, 4), (1, 16), (2, 4)] if options.quick else [(w, b) for w in (1, 2) for b in (1, 4, 16)]

    def job(size: int, steps: int, batch: int, workers: int) -> Job:
        return one_class(options.model, size, steps=steps, batch=batch, workers=workers, levels=None)

    output = options.folder / "slide.ome.tiff"
    jobs = [job(size, 1, b, w) for size in sizes for w, b in ways]
    found = []
    for each in jobs:
        found.append(in_process(weigh, each, output))
        print(f"estimate: {each['size'][0]} px, {each['workers']} workers, batch {each['batch']}: {found[-1]}", file=sys.stderr)
    repetitions = 1 if options.quick else 3
    timed = in_process(time, job(TIMED_PX, TIMED_STEPS, 4, 1), output, repetitions)
    memory = [projected / peak for (projected, peak), _ in found]
    disk = [projected / used for _, (projected, used) in found]
    cpu = f"{TIMED_PX} px, {TIMED_STEPS} steps, one worker; CPU {spread(timed['cpu'])}, wall {spread(timed['wall'])}"
    cases = f"{len(found)} slides of {sizes[0]} and {sizes[1]} px; disk {min(disk):.2f} .. {max(disk):.2f}"
    what = "projected over measured peak memory"
    return [
        Figure("estimate", f"{what}, the least", min(memory), MEMORY[1], cases, floor=MEMORY[0], table=_table(jobs, found)),
        Figure("estimate", f"{what}, the greatest", max(memory), MEMORY[1], cases, floor=MEMORY[0]),
        Figure("estimate", "estimated over measured time of a run", median(timed["cpu"]), TIME[1], cpu, floor=TIME[0]),
    ]


def _table(jobs: list[Job], found: list[Weighed]) -> str:
    head = ["slide px", "workers", "batch", "memory projected", "measured", "ratio", "disk projected", "measured"]
    rows = []
    for job, (memory, disk) in zip(jobs, found, strict=True):
        mib = [f"{value / 2**20:.0f}" for value in (*memory, *disk)]
        rows.append([job["size"][0], job["workers"], job["batch"], *mib[:2], f"{memory[0] / memory[1]:.2f}", *mib[2:]])
    what = "Projected and measured peak memory (VmHWM) and disk, MiB; default threads of one process, one step."
    return f"{what}\n\n{table(head, rows)}"


def weigh(job: Job, output: Path) -> Weighed:
    """Projected and measured peak memory, and disk, of a slide."""
    from wsigen.run.config import make_config
    from wsigen.run.estimate.memory import project_run
    from wsigen.run.prepare import prepare

    prepared = prepare(make_config(job), output)
    projection = project_run(prepared.spec, prepared.card, prepared.layout)
    watch = DiskUse(output.parent)
    wsigen.generate(output, watch=watch, **job)
    disk = (projection.disk_state + projection.disk_output + projection.disk_scratch, watch.most)
    return (projection.total(job["workers"], False), peak_rss()), disk


def time(job: Job, output: Path, repetitions: int) -> dict[str, list[float]]:
    """Estimated over measured seconds, by the CPU's clock and by the wall's."""
    from wsigen.run.config import make_config
    from wsigen.run.estimate.estimate import estimate_by

    clocks: dict[str, Callable[[], float]] = {"cpu": process_time, "wall": perf_counter}

    def said() -> dict[str, float]:
        return {name: estimate_by(clock, make_config(job)).seconds for name, clock in clocks.items()}

    ratios: dict[str, list[float]] = {name: [] for name in clocks}
    before = said()  # the first one also loads what the run then finds loaded
    before = said()
    for _ in range(repetitions):
        begin = {name: clock() for name, clock in clocks.items()}
        wsigen.generate(output, **job)
        spent = {name: clock() - begin[name] for name, clock in clocks.items()}
        after = said()
        for name in clocks:
            ratios[name].append((before[name] + after[name]) / 2 / spent[name])
        before = after
    return ratios
