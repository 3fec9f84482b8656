"""What ``wsigen estimate`` says over what a run takes: seconds, peak memory and disk.

Every row is a process of its own (``python -m benchmarks.estimate JOB``). Memory: one slide for 1 worker and for 2 threads, and
batches of 1, 4 and 16 crops, small and large, each of one step. The figures of memory are the least and the greatest ratio.
Time: estimates and runs in turn; of each run the mean of the estimates before and after it. CPU seconds leave out what else the
machine does; the wall's are of interest where it does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from benchmarks.figure import Figure, Options, spread
from benchmarks.memory import peak_rss
from wsigen.run.engine.stage import Stage

SMALL_PX, LARGE_PX, QUICK_PX = 1024, 4096, 2048
TIMED_PX, TIMED_STEPS = 1024, 6
MEMORY, TIME = (1.0, 1.3), (0.85, 1.15)


@dataclass(frozen=True, slots=True)
class Job:
    """A slide to estimate and to make; ``repetitions`` of 0: its memory and disk alone."""

    model: str
    folder: str
    size: int
    steps: int
    batch: int
    workers: int
    repetitions: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """Of ``wsigen.generate``: all tissue."""
        from wsigen.models.bundle import check_bundle, find_bundle

        table = check_bundle(find_bundle(self.model)).table
        return {
            "model": self.model,
            "size": (self.size, self.size),
            "class_name": next(c.name for c in table if not c.background),
            "steps": self.steps,
            "batch": self.batch,
            "workers": self.workers,
            "threads": 1,
            "overwrite": True,
        }

    @property
    def output(self) -> Path:
        """The slide."""
        return Path(self.folder) / "slide.ome.tiff"


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
    jobs = [Job(options.model, str(options.folder), size, 1, b, w) for size in sizes for w, b in ways]
    found = [(job, _run(job)) for job in jobs]
    timed = _run(Job(options.model, str(options.folder), TIMED_PX, TIMED_STEPS, 4, 1, 1 if options.quick else 3))
    memory = [row["memory"][0] / row["memory"][1] for _, row in found]
    disk = [row["disk"][0] / row["disk"][1] for _, row in found]
    table = _table(found)
    cpu = f"{TIMED_PX} px, {TIMED_STEPS} steps, one worker; CPU {spread(timed['cpu'])}, wall {spread(timed['wall'])}"
    cases = f"{len(found)} slides of {sizes[0]} and {sizes[1]} px; disk {min(disk):.2f} .. {max(disk):.2f}"
    what = "projected over measured peak memory"
    return [
        Figure("estimate", f"{what}, the least", min(memory), MEMORY[1], cases, floor=MEMORY[0], table=table),
        Figure("estimate", f"{what}, the greatest", max(memory), MEMORY[1], cases, floor=MEMORY[0]),
        Figure("estimate", "estimated over measured time of a run", median(timed["cpu"]), TIME[1], cpu, floor=TIME[0]),
    ]


def _run(job: Job) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.estimate", json.dumps(asdict(job))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"estimate: {job.size} px, {job.workers} workers, batch {job.batch}: {found}", file=sys.stderr, flush=True)
    return found


def _table(found: list[tuple[Job, dict[str, Any]]]) -> str:
    lines = [
        "Projected and measured peak memory (VmHWM) and disk, MiB; default threads of one process, one step.",
        "",
        "| slide px | workers | batch | memory projected | measured | ratio | disk projected | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for job, row in found:
        (projected, peak), disk = row["memory"], row["disk"]
        cells = [job.size, job.workers, job.batch, f"{projected / 2**20:.0f}", f"{peak / 2**20:.0f}", f"{projected / peak:.2f}"]
        cells += [f"{value / 2**20:.0f}" for value in disk]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _weigh(job: Job) -> dict[str, Any]:
    """Projected and measured peak memory and disk of a slide."""
    from wsigen.run.config import make_config
    from wsigen.run.estimate.projection import project_run
    from wsigen.run.generate import generate
    from wsigen.run.prepare import prepare

    prepared = prepare(make_config(job.settings), job.output)
    projection = project_run(prepared.manifest, prepared.card, prepared.layout)
    watch = DiskUse(job.output.parent)
    generate(job.output, watch=watch, **job.settings)
    disk = (projection.disk_state + projection.disk_output + projection.disk_scratch, watch.most)
    return {"memory": (projection.total(job.workers, False), peak_rss()), "disk": disk}


def _time(job: Job) -> dict[str, Any]:
    """Estimated over measured seconds, by the CPU's clock and by the wall's."""
    from wsigen.run.config import make_config
    from wsigen.run.estimate.estimate import estimate
    from wsigen.run.generate import generate

    config = make_config(job.settings)
    clocks: dict[str, Callable[[], float]] = {"cpu": process_time, "wall": perf_counter}

    def said() -> dict[str, float]:
        return {name: estimate(config, clock=clock).seconds for name, clock in clocks.items()}

    ratios: dict[str, list[float]] = {name: [] for name in clocks}
    before = said()  # the first one also loads what the run then finds loaded
    before = said()
    for _ in range(job.repetitions):
        begin = {name: clock() for name, clock in clocks.items()}
        generate(job.output, config)
        spent = {name: clock() - begin[name] for name, clock in clocks.items()}
        after = said()
        for name in clocks:
            ratios[name].append((before[name] + after[name]) / 2 / spent[name])
        before = after
    return ratios


def main() -> None:
    """Do one job and print what was found as JSON."""
    job = Job(**json.loads(sys.argv[1]))
    print(json.dumps((_time if job.repetitions else _weigh)(job)))


if __name__ == "__main__":
    main()
