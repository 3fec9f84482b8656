"""The same level 0 whatever runs it: workers, processes, window, chunks, and after ``kill -9`` at random moments.

Killed runs are processes of the command line. The driver is killed at a moment drawn from the time a whole run takes, then
resumed, and killed again; in other runs a worker process is killed, and the driver must go on without it.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

import wsigen
from benchmarks.bundles import make_bundle, write_squares
from benchmarks.faults.fleet import Driver
from benchmarks.figure import Figure, Options
from benchmarks.processes import workers_of

WAYS: list[dict[str, Any]] = [
    {"workers": 1, "window": 1},
    {"workers": 1, "window": 4},
    {"workers": 2, "window": 1},
    {"workers": 2, "window": 4},
    {"workers": 2, "processes": True, "window": 1},
    {"workers": 2, "processes": True, "window": 4},
    {"workers": 2, "chunk": 72},
    {"workers": 1, "chunk": 256},
]
QUICK_WAYS = [WAYS[0], WAYS[3], WAYS[6]]
MODES = ("random-patch", "shifted")
SIZE = (1500, 1400)
POLL_S, PATIENCE_S = 0.02, 120.0
WORKER_PROCESSES = ("--processes", "--workers", "2")


def measure(options: Options) -> Figure:
    chance = random.Random(options.seed)
    ways, kills = (QUICK_WAYS, 1) if options.quick else (WAYS, 2)
    bundle = make_bundle(options.folder / "bundle", widths=(8, 8), decoder_width=4, crop=16)
    layout = write_squares(options.folder / "layout.geojson", [("Stroma", 100, 120, 1100), ("Tumor", 400, 300, 500)])
    steps = 3 if options.quick else 8
    settings: dict[str, Any] = {"model": str(bundle), "layout": str(layout), "size": SIZE, "eta": 1.0, "steps": steps}
    runs = differ = drivers = workers = 0
    for mode in MODES[:1] if options.quick else MODES:
        (folder := options.folder / mode).mkdir()
        how = {**settings, "mode": mode, "chunk": 32, "threads": 1}
        slides = [wsigen.generate(folder / f"way-{number}.ome.tiff", **{**how, **way}) for number, way in enumerate(ways)]
        digests = [slide.level0_sha256 for slide in slides]
        commands = CommandRuns(folder, how, chance)
        for number in range(1 if options.quick else 3):
            commands.kill_driver(number, kills, processes=number % 2 == 1)
        for number in range(kills):
            commands.kill_workers(number, kills)
        digests += commands.digests
        runs, differ = runs + len(digests), differ + sum(d != digests[0] for d in digests)
        drivers, workers = drivers + commands.driver_kills, workers + commands.worker_kills
    detail = (
        f"{len(ways)} ways to run it, {drivers} kills of the driver, {workers} of a worker process "
        f"(moments from seed {options.seed}); slide of {SIZE[0]}x{SIZE[1]} px"
    )
    return Figure("repeatable", f"slides of {runs} whose level 0 has another SHA-256", differ, 0, detail, unit="")


class CommandRuns:
    """Runs of one slide by the command line, killed at random moments; the first is disturbed by nobody.

    Parameters
    ----------
    folder, settings:
        Where the slides go; options of ``wsigen generate``.
    chance:
        Draws the moments of kills, and which worker.

    Attributes
    ----------
    digests:
        SHA-256 of level 0 of every finished run.
    driver_kills, worker_kills:
        Kills that met a running process.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        texts = {key: "x".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in settings.items()}
        self._options = [word for key, text in texts.items() for word in (f"--{key.replace('_', '-')}", text)]
        self.digests: list[str] = []
        self.driver_kills = self.worker_kills = 0
        begin = monotonic()
        self._finish("whole", self._started("whole"))
        self._seconds = monotonic() - begin  # kills of other runs fall into this time

    def kill_driver(self, number: int, kills: int, processes: bool) -> None:
        """Start a run, kill it and go on with it ``kills`` times, then let it end."""
        name = f"driver-{number}"
        driver = self._started(name, *(WORKER_PROCESSES if processes else ()))
        for _ in range(kills):
            if self._ends_in_time(driver, kills):
                break
            driver.kill()
            self.driver_kills += 1
            self._begin(name, driver)
        self._finish(name, driver)

    def kill_workers(self, number: int, kills: int) -> None:
        """Kill worker processes of a run, which must end by itself."""
        name = f"worker-{number}"
        driver = self._started(name, *WORKER_PROCESSES)
        for _ in range(kills):
            victims: list[psutil.Process] = []
            while len(victims) < 2 and not driver.wait(POLL_S):
                victims = workers_of(driver.pid)
            if victims and not self._ends_in_time(driver, kills):
                with suppress(psutil.NoSuchProcess):
                    self._chance.choice(victims).kill()
                    self.worker_kills += 1
        self._finish(name, driver)

    def _started(self, name: str, *more: str) -> Driver:
        generate = ["generate", str(self._folder / f"{name}.ome.tiff"), *self._options, *more]
        driver = Driver(self._folder, generate, ["resume", str(self._folder / f"{name}.run")], self._folder)
        self._begin(name, driver)
        return driver

    def _begin(self, name: str, driver: Driver) -> None:
        """Start the command line and wait until it holds the run, which is when work begins."""
        lock, begun = (self._folder / f"{name}.run" / file for file in ("driver.lock", "run.json"))
        before = lock.stat().st_mtime_ns if lock.exists() else 0
        driver.start(begun.exists())
        begin = monotonic()
        while not driver.wait(POLL_S) and monotonic() - begin < PATIENCE_S:
            if lock.exists() and lock.stat().st_mtime_ns != before:
                break

    def _ends_in_time(self, driver: Driver, kills: int) -> bool:
        """Wait for a drawn moment; whether the process has ended by then."""
        return driver.wait(self._chance.uniform(0.0, self._seconds / kills))

    def _finish(self, name: str, driver: Driver) -> None:
        if not driver.wait(10 * PATIENCE_S) or driver.code:
            raise RuntimeError(f"a run ended with exit code {driver.code}:\n{driver.last_words()}")
        self.digests.append(json.loads((self._folder / f"{name}.json").read_text())["sha256"]["level0_tiles"])
