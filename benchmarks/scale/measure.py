"""Measure `TaskTimes` in a minute or two: tasks without the model, in memory, and trivial ones on a real scheduler.

CPU seconds throughout, so that other work on the machine matters little. The run lies in ``/dev/shm`` where there is one: what
a store costs is reckoned from bytes, and must not be measured as well.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import process_time

from benchmarks.evaluation import stained_noise
from benchmarks.scale.dispatching import measure_dispatching
from benchmarks.scale.times import TaskTimes
from wsigen.run.config import make_config
from wsigen.run.estimate.speed import measure_speed
from wsigen.run.prepare import prepare
from wsigen.run.tasks.context import load_shared_model
from wsigen.run.tasks.decode import WINDOW
from wsigen.slide.pyramid import PyramidSpec

CHUNK, SIZE_PX = 256, 4096


def measure() -> TaskTimes:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="wsigen-scale-", dir=_memory()) as folder:
        settings = {"size": (SIZE_PX, SIZE_PX), "class_name": "Tumor", "chunk": CHUNK, "steps": 2}
        prepared = prepare(make_config(settings), Path(folder) / "slide.ome.tiff")
        m = prepared.manifest
        speed = measure_speed(prepared, 1, process_time, Path(folder))
        sent = measure_dispatching(Path(folder) / "dispatch")
    beside, block = speed.beside, (PyramidSpec(**m.slide).block // prepared.card.latent.factor) ** 2
    model, pixels = load_shared_model(m.model, m.device, m.precision), stained_noise(WINDOW * prepared.card.latent.factor)
    begin = process_time()
    model.encode(pixels)
    encode = (process_time() - begin) / WINDOW**2
    return TaskTimes(
        machine=describe_machine(),
        start=beside.start,
        denoise=beside.denoise,
        denoise_row=beside.row,
        assemble=beside.assemble,
        tissue_block=beside.tissue_block,
        glass_block=beside.glass_block,
        prepare=beside.prepare,
        tissue_file=beside.tissue_file + block * beside.annotate,
        glass_file=beside.glass_file + block * beside.annotate,
        call=speed.call,
        decode=speed.decode,
        encode=encode,
        **sent,
    )


def describe_machine() -> str:
    """This machine and what ran on it."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0] if named else cpu
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "distributed", "zarr"))
    return f"{os.cpu_count()} cores of {cpu}, Python {sys.version.split()[0]}, {packages}"


def _memory() -> Path | None:
    """A folder in memory, where the system has one."""
    return found if (found := Path("/dev/shm")).is_dir() else None
