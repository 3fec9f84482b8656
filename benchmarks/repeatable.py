"""The same level 0 whatever runs it: workers, processes, window, and after ``kill -9`` at random moments.

Killed runs are processes of the command line. The driver is killed at a moment drawn from the time a whole run takes, then
resumed, and killed again; in other runs a worker process is killed, and the driver must go on without it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

import wsigen
from benchmarks.bundles import make_bundle, write_squares
from benchmarks.figure import Figure, Options
from benchmarks.processes import workers_of

WAYS: list[dict[str, Any]] = [
    {"workers": 1, "window": 1},
    {"workers": 1, "window": 4},
    {"workers": 2, "window": 1},
    {"workers": 2, "window": 4},
    {"workers": 2, "processes": True, "window": 1},
    {"workers": 2, "processes": True, "window": 4},
]
QUICK_WAYS = [WAYS[0], WAYS[3]]
MODES = ("random-patch", "shifted")
SIZE = (1500, 1400)
POLL_S, PATIENCE_S = 0.02, 120.0


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
        self._folder, self._chance, self._log = folder, chance, folder / "log.txt"
        texts = {key: "x".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in settings.items()}
        self._options = [word for key, text in texts.items() for word in (f"--{key.replace('_', '-')}", text)]
        self.digests: list[str] = []
        self.driver_kills = self.worker_kills = 0
        process = self._start("whole", ["generate", str(self._slide("whole")), *self._options])
        begin = monotonic()
        self._finish("whole", process)
        self._seconds = monotonic() - begin  # kills of other runs fall into this time

    def kill_driver(self, number: int, kills: int, processes: bool) -> None:
        """Start a run, kill it and go on with it ``kills`` times, then let it end."""
        name = f"driver-{number}"
        run_dir, slide = self._folder / f"{name}.run", self._slide(name)
        more = ["--processes", "--workers", "2"] if processes else []
        while True:
            begun = (run_dir / "run.json").exists()
            command = ["resume", str(run_dir)] if begun else ["generate", str(slide), *self._options, *more, "--overwrite"]
            process = self._start(name, command)
            if not kills or self._ends_in_time(process, kills):
                return self._finish(name, process)
            process.kill()
            process.wait()
            self.driver_kills += 1
            kills -= 1

    def kill_workers(self, number: int, kills: int) -> None:
        """Kill worker processes of a run, which must end by itself."""
        name = f"worker-{number}"
        process = self._start(name, ["generate", str(self._slide(name)), *self._options, "--processes", "--workers", "2"])
        for _ in range(kills):
            victims: list[psutil.Process] = []
            while len(victims) < 2 and not _ends_within(process, POLL_S):
                victims = workers_of(process.pid)
            if victims and not self._ends_in_time(process, kills):
                self._chance.choice(victims).kill()
                self.worker_kills += 1
        self._finish(name, process)

    def _slide(self, name: str) -> Path:
        return self._folder / f"{name}.ome.tiff"

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start the command line and wait until it holds the run, which is when work begins."""
        lock = self._folder / f"{name}.run" / "driver.lock"
        before = lock.stat().st_mtime_ns if lock.exists() else 0
        with self._log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "wsigen", *command], stdout=log, stderr=log)
        begin = monotonic()
        while not _ends_within(process, POLL_S) and monotonic() - begin < PATIENCE_S:
            if lock.exists() and lock.stat().st_mtime_ns != before:
                break
        return process

    def _ends_in_time(self, process: subprocess.Popen[bytes], kills: int) -> bool:
        """Wait for a drawn moment; whether the process has ended by then."""
        return _ends_within(process, self._chance.uniform(0.0, self._seconds / kills))

    def _finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.wait(timeout=10 * PATIENCE_S):
            end = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"a run ended with exit code {process.returncode}:\n{end}")
        self.digests.append(json.loads((self._folder / f"{name}.json").read_text())["sha256"]["level0_tiles"])


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long at most; whether the process has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
