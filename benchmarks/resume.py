"""Seconds from ``wsigen resume`` to its first finished task, after SIGKILL of the driver of a large slide.

A slide of two thirds glass, its denoiser trivial, is killed when half of its half-steps are done. What a resumed driver does
until its first task ends is what a user waits for: Python and torch are loaded, inputs hashed, the store's keys listed,
leftovers swept, workers started. The resumed driver is then killed as well, and the next one measured.
"""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

import wsigen
from benchmarks.faults.fleet import Driver
from benchmarks.faults.store import stored
from benchmarks.figure import Figure, Options, spread
from benchmarks.processes import cpu_seconds
from benchmarks.whole import settings
from wsigen.run.engine.stage import Stage

SIZE_PX, QUICK_PX = 65536, 16384
KILLS = 3
TARGET_S = 10.0
POLL_S, PATIENCE_S = 0.05, 1800.0


def measure(options: Options) -> Figure:
    size = QUICK_PX if options.quick else SIZE_PX
    run_dir = options.folder / "slide.run"
    resumed = Driver(options.folder, [], ["resume", str(run_dir)], options.folder)
    begin = monotonic()
    asked = (options.folder / "slide.ome.tiff", settings(options.folder, size))
    driver = get_context("spawn").Process(target=_half_of, args=asked)
    driver.start()
    driver.join()
    if driver.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the run did not get to its middle: exit code {driver.exitcode}")
    making = monotonic() - begin
    walls, processors = [], []
    for _ in range(KILLS):
        before = _written(run_dir)
        begin = monotonic()
        resumed.start(begun=True)
        try:
            _wait_for_a_task(resumed, run_dir, before)
            walls.append(monotonic() - begin)
            processors.append(cpu_seconds(resumed.pid))
        finally:
            resumed.kill()
    detail = (
        f"{spread(walls)}; of it processor time {median(processors):.1f} s; {size} px, a third of it tissue, half of it done "
        f"in {making:.0f} s before the first kill, {len(before)} keys and blocks; load {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores"
    )
    what = f"from 'wsigen resume' to its first finished task after SIGKILL of the driver, {size} px"
    return Figure("resume", what, median(walls), TARGET_S, detail, unit="s")


def _half_of(output: Path, asked: dict[str, Any]) -> None:
    """A driver that is killed when half of its half-steps are done."""

    def watch(stage: Stage) -> None:
        if stage.name.startswith("denoise") and 2 * stage.done >= stage.total:
            os.kill(os.getpid(), signal.SIGKILL)

    wsigen.generate(output, watch=watch, **asked)


def _wait_for_a_task(driver: Driver, run_dir: Path, before: dict[Path, int]) -> None:
    """Wait until a key is written that was not there, or not in this writing."""
    end = monotonic() + PATIENCE_S
    while monotonic() < end and driver.running:
        if any(before.get(path) != time for path, time in _written(run_dir).items()):
            return
        sleep(POLL_S)
    raise RuntimeError(f"the resumed run did nothing:\n{driver.last_words()}")


def _written(run_dir: Path) -> dict[Path, int]:
    """Keys and blocks that are there, and when each was written."""
    found = {}
    for path in stored(run_dir):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # deleted meanwhile
    return found
