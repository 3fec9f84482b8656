"""The same level 0 whatever runs it: workers, processes, window, and after ``kill -9`` at random moments.

Killed runs are processes of the command line. The driver is killed at a moment drawn from the time a whole run takes, then
resumed, and killed again; in other runs a worker process is killed, and the driver must go on without it.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bundles import make_bundle, write_squares
from benchmarks.figure import Figure, Options
from benchmarks.killing import CommandRuns
from wsigen.run.generate import generate

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


def measure(options: Options) -> Figure:
    chance = random.Random(options.seed)
    ways = QUICK_WAYS if options.quick else WAYS
    bundle = make_bundle(options.folder / "bundle", widths=(8, 8), decoder_width=4, crop=16)
    layout = write_squares(options.folder / "layout.geojson", [("Stroma", 100, 120, 1100), ("Tumor", 400, 300, 500)])
    runs = differ = drivers = workers = 0
    for mode in MODES[:1] if options.quick else MODES:
        settings = {
            "model": str(bundle),
            "layout": str(layout),
            "size": SIZE,
            "mode": mode,
            "eta": 1.0,
            "steps": 3 if options.quick else 8,
            "chunk": 32,
            "threads": 1,
        }
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            digests = _ways(Path(folder), settings, ways)
            commands = CommandRuns(Path(folder), settings, chance)
            commands.whole()
            for number in range(1 if options.quick else 3):
                commands.kill_driver(number, kills=1 if options.quick else 2, processes=number % 2 == 1)
            for number in range(1 if options.quick else 2):
                commands.kill_workers(number, kills=1 if options.quick else 2)
        digests += commands.digests
        runs, differ = runs + len(digests), differ + sum(d != digests[0] for d in digests)
        drivers, workers = drivers + commands.driver_kills, workers + commands.worker_kills
    detail = (
        f"{len(ways)} ways to run it, {drivers} kills of the driver, {workers} of a worker process "
        f"(moments from seed {options.seed}); slide of {SIZE[0]}x{SIZE[1]} px"
    )
    return Figure("repeatable", f"slides of {runs} whose level 0 has another SHA-256", differ, 0, detail, unit="")


def _ways(folder: Path, settings: dict[str, Any], ways: list[dict[str, Any]]) -> list[str]:
    """SHA-256 of level 0 for every way to run a slide."""
    found = []
    for number, how in enumerate(ways):
        made = generate(folder / f"way-{number}.ome.tiff", **{**settings, **how})
        found.append(made.level0_sha256)
    return found
