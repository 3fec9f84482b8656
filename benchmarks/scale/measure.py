"""Measure `TaskTimes` in a minute or two: a run without a model, in memory, and trivial tasks on a real scheduler.

CPU seconds throughout, so that other work on the machine matters little. The run lies in ``/dev/shm`` where there is one: what
a store costs is reckoned from bytes, and must not be measured as well.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from benchmarks.bundles import write_squares
from benchmarks.evaluation import stained_noise
from benchmarks.scale.dispatching import measure_dispatching
from benchmarks.scale.times import TaskTimes
from wsigen.config import make_config
from wsigen.mending import prepare_pass
from wsigen.outputs import files_of, write_outputs
from wsigen.preparation import Prepared, prepare
from wsigen.rundir import claim, make_run_dir
from wsigen.slide.codec import RGB
from wsigen.slide.tiles import encode_block
from wsigen.speed import measure_speed
from wsigen.tasks.context import PassContext, RunContext, run_context
from wsigen.tasks.decode import WINDOW, decode_block
from wsigen.tasks.denoise import assemble, denoise, start

CHUNK, REPETITIONS = 256, 3
SIZE_PX, TISSUE_PX = (8192, 6144), 4608
"""Width and height of the slide, 3 x 4 chunks and as many blocks, and the tissue's: the middle chunk reaches no glass."""
MIDDLE, TISSUE, GLASS = (1, 1), (1, 1), (1, 3)
"""A chunk whose neighbours are all there, a block of tissue alone and one of glass."""


class Hollow:
    """A model that costs nothing: everything of the real one but its calls."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pixels = np.ascontiguousarray(stained_noise(WINDOW * model.card.latent.factor), dtype=np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, latents: np.ndarray, *_: object) -> np.ndarray:
        """Nothing."""
        return np.zeros_like(latents)

    def decode(self, *_: object) -> np.ndarray:
        """The same window of stained noise, as fresh values."""
        return self._pixels.copy()

    def freeze_norm(self, *_: object) -> None:
        """Nothing to freeze."""


def measure() -> TaskTimes:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="wsigen-scale-", dir=_memory()) as folder:
        run, prepared, spent = _prepared(Path(folder))
        part = run.passes[0]
        tasks = _denoising(run, part)
        blocks = _decoding(run, part)
        files = _writing(run, Path(folder))
        speed = measure_speed(prepared, 1, process_time)
        encode = _encoding(prepared)
        sent = measure_dispatching(Path(folder) / "dispatch")
    return TaskTimes(
        machine=describe_machine(),
        prepare=spent / (part.plan.height * part.plan.width),
        call=speed.call,
        decode=speed.decode,
        encode=encode,
        **tasks,
        **blocks,
        **files,
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


def _prepared(folder: Path) -> tuple[RunContext, Prepared, float]:
    """A run whose pass is prepared, with a model that costs nothing, and the seconds of preparing."""
    square = [("Tumor", 0, y, TISSUE_PX) for y in (0, SIZE_PX[1] - TISSUE_PX)]
    layout = write_squares(folder / "layout.geojson", square)
    output = folder / "slide.ome.tiff"
    prepared = prepare(make_config({"layout": layout, "size": SIZE_PX, "chunk": CHUNK, "steps": 1}), output)
    claim(made := make_run_dir(folder / "run", output), prepared)
    run = run_context(made.name, prepared.manifest.hash)
    run.spool.make()
    begin = process_time()
    prepare_pass(run, run.passes[0], prepared.layout)
    spent = process_time() - begin
    run.__dict__["model"] = Hollow(run.model)  # where a cached property keeps its value
    return run, prepared, spent


def _denoising(run: RunContext, part: PassContext) -> dict[str, float]:
    """Of the chunk in the middle, whose neighbours are all there; a run's keys are new, so that old ones are deleted before."""
    middle, area, active = MIDDLE, CHUNK**2, _active(part)
    for ij in active:
        start(run, part, ij)
    for ij in active:
        denoise(run, part, ij, 0)
    for ij in active:
        assemble(run, part, ij, 0)
    rows = denoise(run, part, middle, 0)
    found = {
        "start": _seconds(lambda: start(run, part, middle), lambda: part.state.delete(0, middle)) / area,
        "assemble": _seconds(lambda: assemble(run, part, middle, 0), lambda: part.state.delete(2, middle)) / area,
    }
    whole = _seconds(lambda: denoise(run, part, middle, 0), lambda: part.state.delete(1, middle))
    crops = _seconds(lambda: _estimates(run, part, rows))
    return {**found, "denoise": max(0.0, whole - crops) / area, "denoise_row": crops / rows}


def _active(part: PassContext) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in np.argwhere(part.state.activity)]


def _estimates(run: RunContext, part: PassContext, rows: int) -> None:
    """What every crop costs a denoise task: conditions, batches, guidance, the estimate of x0."""
    from wsigen.tasks.denoise import step_settings
    from wsigen.tasks.predict import estimate_crops

    side = part.plan.side
    pair = (np.zeros((part.state.channels, side, side), np.float32), np.ones((side, side), np.uint8))
    for _ in estimate_crops(run.model, step_settings(run, part, 0), [pair] * rows):
        pass


def _decoding(run: RunContext, part: PassContext) -> dict[str, float]:
    """Of a block that is decoded and of one of bare glass."""
    part.state.write_norm(np.empty(0))
    found = {}
    for name, ij in (("tissue_block", TISSUE), ("glass_block", GLASS)):
        found[name] = _seconds(partial(decode_block, run, part, ij))
    return found


def _writing(run: RunContext, folder: Path) -> dict[str, float]:
    """Of files whose blocks are all tissue, and all glass."""
    spec = run.slide
    kinds: dict[str, RGB] = {
        "tissue_file": stained_noise(spec.block),
        "glass_file": np.full((spec.block, spec.block, 3), run.glass_rgb, np.uint8),
    }
    found = {}
    for name, pixels in kinds.items():
        for ij in spec.grid:
            run.spool.write(ij, encode_block(spec, ij, pixels))
        begin = process_time()
        write_outputs(run, files_of(folder / "slide.ome.tiff"), lambda: None)
        found[name] = (process_time() - begin) / len(spec.grid)
    return found


def _encoding(prepared: Prepared) -> float:
    """Seconds of a latent pixel encoded."""
    from wsigen.tasks.context import load_shared_model

    m = prepared.manifest
    model = load_shared_model(m.model, m.device, m.precision)
    pixels = stained_noise(WINDOW * model.card.latent.factor)
    return _seconds(lambda: model.encode(pixels), repetitions=1) / WINDOW**2


def _seconds(work: Callable[[], object], before: Callable[[], object] = lambda: None, repetitions: int = REPETITIONS) -> float:
    """CPU seconds, the median of some repetitions; ``before`` each, what is not measured."""
    times = []
    for _ in range(repetitions):
        before()
        begin = process_time()
        work()
        times.append(process_time() - begin)
    return median(times)
