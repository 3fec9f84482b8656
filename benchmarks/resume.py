"""Seconds from ``wsigen resume`` to its first finished task, after SIGKILL of the driver of a large slide.

A slide of two thirds glass, its denoiser trivial, is killed when half of its half-steps are done. What a resumed driver does
until its first task ends is what a user waits for: Python and torch are loaded, inputs hashed, the store's keys listed,
leftovers swept, workers started. The resumed driver is then killed as well, and the next one measured.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep

import psutil

from benchmarks.faults.damage import stored
from benchmarks.faults.progress import half_steps
from benchmarks.figure import Figure, Options, spread
from benchmarks.whole import STEPS, settings

SIZE_PX, QUICK_PX = 65536, 16384
KILLS = 3
TARGET_S = 10.0
POLL_S, PATIENCE_S = 0.05, 1800.0


@dataclass(frozen=True)
class Return:
    """One resumed driver: wall and processor seconds from its start to its first finished task."""

    wall_s: float
    processor_s: float


def measure(options: Options) -> Figure:
    size = QUICK_PX if options.quick else SIZE_PX
    run_dir, log = options.folder / "slide.run", options.folder / "log.txt"
    begin = monotonic()
    driver = _start(_generate(options.folder, size), log)
    done = _wait_for_half(driver, run_dir, log)
    making = monotonic() - begin
    returns = []
    for _ in range(KILLS):
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        before = _written(run_dir)
        begin = monotonic()
        driver = _start(["resume", str(run_dir)], log)
        _wait_for_a_task(driver, run_dir, log, before)
        returns.append(Return(monotonic() - begin, _processor_seconds(driver)))
    driver.kill()
    driver.wait()
    walls = [each.wall_s for each in returns]
    detail = (
        f"{spread(walls)}; of it processor time {median(each.processor_s for each in returns):.1f} s; {size} px, a third of it "
        f"tissue, {done} half-steps done in {making:.0f} s before the first kill, {len(before)} keys and blocks; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    what = f"from 'wsigen resume' to its first finished task after SIGKILL of the driver, {size} px"
    return Figure("resume", what, median(walls), TARGET_S, detail, unit="s")


def _generate(folder: Path, size: int) -> list[str]:
    """Arguments of ``wsigen generate``."""
    options = settings(folder, size) | {"size": f"{size}x{size}"}
    return ["generate", str(folder / "slide.ome.tiff"), *(str(part) for k, v in options.items() for part in (f"--{k}", v))]


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "wsigen", *command], stdout=file, stderr=file)


def _wait_for_half(driver: subprocess.Popen[bytes], run_dir: Path, log: Path) -> int:
    """Wait until half of all half-steps are done; how many those are."""
    from wsigen.base.errors import WsigenError
    from wsigen.run.tasks.context import RunContext

    end = monotonic() + PATIENCE_S
    while monotonic() < end and driver.poll() is None:
        sleep(10 * POLL_S)
        try:
            state = RunContext(run_dir).passes[0].state
            wanted = int(state.activity.sum()) * (2 * STEPS + 1) // 2
        except (WsigenError, OSError, KeyError, ValueError):
            continue  # not prepared yet
        while monotonic() < end and driver.poll() is None:
            done = half_steps(run_dir)
            if done >= wanted:
                return done
            sleep(10 * POLL_S)
    raise RuntimeError(f"the run did not get to its middle:\n{log.read_text(errors='replace')[-1500:]}")


def _wait_for_a_task(driver: subprocess.Popen[bytes], run_dir: Path, log: Path, before: dict[Path, int]) -> None:
    """Wait until a key is written that was not there, or not in this writing."""
    end = monotonic() + PATIENCE_S
    while monotonic() < end and driver.poll() is None:
        if any(before.get(path) != time for path, time in _written(run_dir).items()):
            return
        sleep(POLL_S)
    raise RuntimeError(f"the resumed run did nothing:\n{log.read_text(errors='replace')[-1500:]}")


def _written(run_dir: Path) -> dict[Path, int]:
    """Keys and blocks that are there, and when each was written."""
    found = {}
    for path in stored(run_dir):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # deleted meanwhile
    return found


def _processor_seconds(driver: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(driver.pid).cpu_times()
    return float(times.user + times.system)
