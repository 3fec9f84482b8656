"""Wall time of the demo slide, as its user waits for it: the command as a process of its own, start-up included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.figure import Figure, Options

LAYOUT = Path(__file__).parents[1] / "examples" / "demo.geojson"
SIZE = "4096x4096"
TARGET_MINUTES = 3.0


def measure(options: Options) -> Figure:
    output = options.folder / "demo.ome.tiff"
    command = [sys.executable, "-m", "wsigen", "generate", str(output), "--layout", str(LAYOUT), "--size", SIZE]
    begin = perf_counter()
    subprocess.run([*command, "--model", options.model], check=True)
    minutes = (perf_counter() - begin) / 60
    what = f"the demo slide, {SIZE} px from a layout with glass around it, default settings"
    return Figure("demo", what, minutes, TARGET_MINUTES, f"{60 * minutes:.0f} s", unit="min")
