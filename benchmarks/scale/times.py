"""What a task costs a worker beside the model, and the driver and the scheduler: measured, kept as JSON, and read here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wsigen.base.errors import ConfigError
from wsigen.storage.files import write_atomic

MEASURED = Path(__file__).with_name("times.json")
"""As measured for docs/benchmarks.md."""


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """CPU seconds without a model and without a store: runs lay in memory, transfers are reckoned from bytes.

    Attributes
    ----------
    machine:
        Where this was measured.
    start, denoise, assemble:
        A worker's, for a latent pixel of the chunk: noise, reading, merging, checksums, writing.
    denoise_row:
        And for every crop.
    tissue_block, glass_block:
        A worker's, to encode and spool a block of 2048 px that is decoded, and one of bare glass.
    task:
        A worker's for any task: dask's messages.
    driver, scheduler:
        Theirs, for any task.
    driver_worker:
        The driver's, for every worker in every second: it counts them.
    heartbeat:
        The scheduler's, for a worker's sign of life.
    prepare:
        The driver's, for a latent pixel before a pass: class map and active chunks.
    tissue_file, glass_file:
        The driver's, for a block, from the spool into the finished file with its checksums, annotations and thumbnail.
    call, decode, encode:
        The embedded model's on one core: a crop in a model call, a latent pixel decoded (its halo counts) and encoded.
    """

    machine: str
    start: float
    denoise: float
    denoise_row: float
    assemble: float
    tissue_block: float
    glass_block: float
    task: float
    driver: float
    scheduler: float
    driver_worker: float
    heartbeat: float
    prepare: float
    tissue_file: float
    glass_file: float
    call: float
    decode: float
    encode: float

    @classmethod
    def load(cls, path: Path = MEASURED) -> TaskTimes:
        """Read what was measured.

        Raises
        ------
        ConfigError
            If the file is none of these, or a number in it is none.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: cannot be read ({error}); write it with: python -m benchmarks.simulate --measure"
            ) from None
        wanted = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or set(found) != wanted:
            raise ConfigError(f"{path}: must hold {', '.join(sorted(wanted))}; write it anew with --measure")
        wrong = [key for key in sorted(wanted - {"machine"}) if not (isinstance(found[key], int | float) and found[key] >= 0)]
        if wrong:
            raise ConfigError(
                f"{path}: {wrong[0]} is {found[wrong[0]]!r}, not a number of seconds; write it anew with --measure"
            )
        return cls(**found)

    def save(self, path: Path) -> None:
        """Write it, to three digits."""
        rounded = {key: value if isinstance(value, str) else float(f"{value:.3g}") for key, value in asdict(self).items()}
        write_atomic(path, json.dumps(rounded, indent=2).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the model costs a worker.

    Attributes
    ----------
    call, decode, encode:
        Seconds of a crop in a model call, of a latent pixel decoded (its halo counts) and encoded.
    """

    name: str
    call: float
    decode: float
    encode: float


def this_cpu(times: TaskTimes) -> Scenario:
    """The embedded model on one core, as measured."""
    return Scenario("one CPU core (measured)", times.call, times.decode, times.encode)


GPU_WINDOW_S = 0.03
"""Assumed: a window of 128 latent px decoded, halo and all."""


def assumed_gpu(call: float) -> Scenario:
    """An accelerator that nobody measured: a crop in ``call`` seconds, a window of 1024 px decoded or encoded in 30 ms."""
    pixel = GPU_WINDOW_S / 128**2
    return Scenario(f"GPU (assumed: {1000 * call:g} ms a crop)", call, pixel, pixel)
