"""What a task costs a worker, the driver and dask's scheduler: measured here, kept in ``task_times.json``.

CPU seconds throughout, so that other work on the machine matters little. Runs lie in memory where the system has a place for
it (``/dev/shm``): what a store costs is reckoned from bytes, and must not be measured as well.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time, thread_time
from typing import Any
from unittest import mock

import wsigen
from benchmarks.faults.fleet import Fleet
from benchmarks.faults.machine import Network
from benchmarks.figure import StageTimes
from benchmarks.processes import cpu_seconds
from wsigen.base.errors import ConfigError
from wsigen.models.autoencoder import Autoencoder
from wsigen.models.model import Model
from wsigen.run.engine.stage import Stage
from wsigen.run.tasks.context import run_context
from wsigen.run.tasks.perform import Report
from wsigen.storage.files import write_atomic

MEASURED = Path(__file__).with_suffix(".json")
"""As measured for docs/benchmarks.md."""

SETTINGS: dict[str, Any] = {"class_name": "Tumor", "levels": 1, "overwrite": True}
SIZE_PX, STEPS = 4096, 2
"""Of the slide of which the worker's times come."""
SMALL_PX, LARGE_PX = 1024, 32768
"""Of the slides whose class maps are timed."""
EMPTY: dict[str, Any] = {"size": (9 * 512, 9 * 512), "chunk": 64, "steps": 5}
"""The run of tasks that do nothing: 81 chunks, 11 tasks each."""
WORKERS, WARM = 4, 200
"""The first tasks do not count: workers import what they need."""


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """CPU seconds.

    Attributes
    ----------
    machine : where they were measured
    crop, window : a crop through the network; a window of 128 latent px decoded with its context
    pixel : a worker's beside the network, for every latent px of a chunk in every step
    block : a worker's beside the network, to encode and spool a block of tissue
    class_map, file : the driver's, for a latent px before a pass; for a block of tissue that goes into the file
    task, driver, scheduler : the worker's, the driver's and the scheduler's for any task
    """

    machine: str
    crop: float
    window: float
    pixel: float
    block: float
    class_map: float
    file: float
    task: float
    driver: float
    scheduler: float

    @classmethod
    def load(cls, path: Path = MEASURED) -> TaskTimes:
        """Read what was measured (ConfigError if the file is none of these)."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            numbers = {field.name: float(found[field.name]) for field in fields(cls) if field.name != "machine"}
            if len(found) == 1 + len(numbers) and min(numbers.values()) >= 0.0:
                return cls(machine=found["machine"], **numbers)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        wanted = ", ".join(field.name for field in fields(cls))
        raise ConfigError(f"{path}: must hold {wanted}, in seconds; write it anew with: python -m benchmarks.scale --measure")

    def save(self, path: Path) -> None:
        """Write it, to three digits."""
        rounded = {key: value if isinstance(value, str) else float(f"{value:.3g}") for key, value in asdict(self).items()}
        write_atomic(path, json.dumps(rounded, indent=2).encode() + b"\n")


def measure() -> TaskTimes:
    """Measure everything, in some minutes."""
    in_memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="wsigen-times-", dir=in_memory if in_memory.is_dir() else None) as name:
        folder = Path(name)
        shared = measure_dispatching(folder)
        small, large = (_seconds_before_denoising(folder, size) for size in (SMALL_PX, LARGE_PX))
        class_map = (large - small) / ((LARGE_PX**2 - SMALL_PX**2) / 8**2)
        return TaskTimes(describe_machine(), class_map=class_map, **measure_work(folder, sum(shared.values())), **shared)


class _Clock:
    """Wraps a function and adds up the seconds of its threads, and its calls' first dimensions."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds, self.calls, self.rows = function, 0.0, 0, 0

    def __call__(self, model: Model | Autoencoder, values: Any, *more: Any) -> Any:
        begin = thread_time()
        found = self._function(model, values, *more)
        self.seconds, self.calls, self.rows = self.seconds + thread_time() - begin, self.calls + 1, self.rows + len(values)
        return found


def measure_work(folder: Path, task: float) -> dict[str, float]:
    """Of a run of the embedded model in one thread; ``task`` is what its dispatching costs, which is taken off."""
    how: dict[str, Any] = {**SETTINGS, "steps": STEPS, "workers": 1, "threads": 1}
    wsigen.generate(folder / "work.ome.tiff", size=(1024, 1024), **how)  # what is done first takes longer
    predict, decode, times = _Clock(Model.predict), _Clock(Autoencoder.decode), StageTimes()
    with (
        mock.patch.object(Model, "predict", lambda *args: predict(*args)),
        mock.patch.object(Autoencoder, "decode", lambda *args: decode(*args)),
    ):
        wsigen.generate(folder / "work.ome.tiff", watch=times, size=(SIZE_PX, SIZE_PX), chunk=SIZE_PX // 16, **how)
    beside = {name: times.cpu(name) - task * times.tasks(name) for name in ("denoise", "decode", "write")}
    pixels, blocks = (SIZE_PX // 8) ** 2 * STEPS, (SIZE_PX // 2048) ** 2
    return {
        "crop": predict.seconds / predict.rows,
        "window": decode.seconds / decode.calls,
        "pixel": (beside["denoise"] - predict.seconds) / pixels,
        "block": (beside["decode"] - decode.seconds) / blocks,
        "file": beside["write"] / blocks,
    }


class _EnoughError(Exception):
    """A run has gone as far as it was wanted."""


def _seconds_before_denoising(folder: Path, size: int) -> float:
    """CPU seconds of the driver until the first task may run: mostly the class map of a large slide."""

    def stop(stage: Stage) -> None:
        raise _EnoughError

    begin = process_time()
    with suppress(_EnoughError):
        wsigen.generate(folder / f"map-{size}.ome.tiff", watch=stop, size=(size, size), steps=2, workers=1, **SETTINGS)
    return process_time() - begin


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
