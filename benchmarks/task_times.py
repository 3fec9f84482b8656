"""What a task costs a worker, the driver and dask's scheduler: measured here, kept in ``task_times.json``.

CPU seconds throughout, so that other work on the machine matters little; a worker's are measured as ``wsigen estimate`` does.
Runs lie in memory where the system has a place for it (``/dev/shm``): what a store costs is reckoned from bytes, and must not
be measured as well.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any
from unittest import mock

from pydantic import NonNegativeFloat

import wsigen
from benchmarks.faults.fleet import Fleet
from benchmarks.faults.machine import Network
from benchmarks.processes import cpu_seconds
from wsigen.base.errors import ConfigError
from wsigen.base.state import State, parse_state
from wsigen.run.config import make_config
from wsigen.run.engine.stage import Stage
from wsigen.run.estimate.speed import measure_speed
from wsigen.run.prepare import prepare
from wsigen.run.tasks.context import run_context
from wsigen.run.tasks.decode import WINDOW
from wsigen.run.tasks.perform import Report
from wsigen.storage.files import write_atomic

MEASURED = Path(__file__).with_suffix(".json")
"""As measured for docs/benchmarks.md."""

SETTINGS: dict[str, Any] = {"class_name": "Tumor", "levels": 1, "overwrite": True}
EMPTY: dict[str, Any] = {"size": (9 * 512, 9 * 512), "chunk": 64, "steps": 5}
"""The run of tasks that do nothing: 81 chunks, 11 tasks each."""
WORKERS, WARM = 4, 200
"""The first tasks do not count: workers import what they need."""


class TaskTimes(State):
    """CPU seconds.

    Attributes
    ----------
    machine : where they were measured
    crop, window : a crop through the network; a window of 128 latent px decoded with its context
    pixel : a worker's beside the network, for every latent px of a chunk in every step
    tissue_block, glass_block : a worker's beside the network, to encode and spool a block
    driver_block : the driver's for a block, of its class map to its place in the file
    task, driver, scheduler : the worker's, the driver's and the scheduler's for any task
    """

    machine: str
    crop: NonNegativeFloat
    window: NonNegativeFloat
    pixel: NonNegativeFloat
    tissue_block: NonNegativeFloat
    glass_block: NonNegativeFloat
    driver_block: NonNegativeFloat
    task: NonNegativeFloat
    driver: NonNegativeFloat
    scheduler: NonNegativeFloat

    @classmethod
    def load(cls, path: Path = MEASURED) -> TaskTimes:
        """Read what was measured (ConfigError if the file is none of these)."""
        text = path.read_text(encoding="utf-8")
        return parse_state(cls, text, f"{path}: write it anew with: python -m benchmarks.scale --measure", ConfigError)

    def save(self, path: Path) -> None:
        """Write it, to three digits."""
        rounded = {key: value if key == "machine" else float(f"{value:.3g}") for key, value in self}
        write_atomic(path, self.model_copy(update=rounded).model_dump_json(indent=2).encode() + b"\n")


def measure() -> TaskTimes:
    """Measure everything, in some minutes."""
    in_memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="wsigen-times-", dir=in_memory if in_memory.is_dir() else None) as name:
        folder = Path(name)
        prepared = prepare(make_config({**SETTINGS, "size": (4096, 4096)}), folder / "work.ome.tiff")
        speed = measure_speed(prepared, 1, process_time, folder)
        beside = speed.non_model
        return TaskTimes(
            machine=describe_machine(),
            crop=speed.call,
            window=speed.decode * WINDOW**2,
            pixel=beside.step,
            tissue_block=beside.tissue_block,
            glass_block=beside.glass_block,
            driver_block=beside.driver_block,
            **measure_dispatching(folder),
        )


class _EnoughError(Exception):
    """A run has gone as far as it was wanted."""


def nothing(run_dir: str, run_hash: str, *_: object) -> Report:
    """Stands for ``wsigen.run.tasks.perform.perform``; it opens the run as that does."""
    run_context(run_dir, run_hash)
    return Report(0, 0.0)


def measure_dispatching(folder: Path) -> dict[str, float]:
    """Of tasks that do nothing: the engine's own loop on a scheduler and workers that are processes of their own."""
    (temporary := folder / "temporary").mkdir()
    fleet = Fleet(folder / "fleet", WORKERS, Network(), temporary)
    seen: list[tuple[int, list[float]]] = []

    def clocks() -> list[float]:
        return [process_time(), *(cpu_seconds(fleet.pid(name)) for name in ("scheduler", *fleet.workers))]

    def watch(stage: Stage) -> None:
        if stage.done >= WARM and (not seen or stage.finished):
            seen.append((stage.done, clocks()))
        if stage.finished:
            raise _EnoughError

    fleet.start()
    try:
        with mock.patch("wsigen.run.engine.dispatch.perform", nothing), suppress(_EnoughError):
            wsigen.generate(folder / "empty.ome.tiff", watch=watch, scheduler=fleet.address, **SETTINGS, **EMPTY)
    finally:
        fleet.stop()
    (before, begin), (after, end) = seen
    driver, scheduler, *workers = ((b - a) / (after - before) for a, b in zip(begin, end, strict=True))
    return {"driver": driver, "scheduler": scheduler, "task": sum(workers)}


def describe_machine() -> str:
    """This machine and what ran on it."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0] if named else cpu
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "distributed", "zarr"))
    return f"{os.cpu_count()} cores of {cpu}, Python {sys.version.split()[0]}, {packages}"
