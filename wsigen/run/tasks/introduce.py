"""What a worker says of itself: the things that must be alike on all workers of a run, and what they can reach."""

from __future__ import annotations

import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from wsigen.storage.opening import open_nearest, why_not_usable


@dataclass(frozen=True, slots=True)
class Introduction:
    """A worker's answer.

    Attributes
    ----------
    host, python:
        Name of its machine, version of Python.
    versions:
        Of the packages that decide bits, ``"missing"`` where one is.
    devices:
        ``cpu`` and the accelerators torch sees there.
    memory_gib:
        Memory of its machine, or what its control groups allow (a container, a job of a queue), GiB.
    model:
        SHA-256 of the bundle, or why it has none.
    run_dir:
        ``"writable"``, or why not; None if none was asked for. A folder that is not there yet is as good as the one it will
        be made in.
    """

    host: str
    python: str
    versions: dict[str, str]
    devices: list[str]
    memory_gib: float
    model: str
    run_dir: str | None = None


def introduce(packages: tuple[str, ...], model: str, run_dir: str | None, mark: str | None = None) -> Introduction:
    """Answer on a worker.

    Parameters
    ----------
    packages:
        Names of the packages whose versions are asked for.
    model:
        Name, folder or hub id of the bundle; the asker's absolute path, if it has one, as tasks will name it.
    run_dir:
        A folder or URL the worker must be able to write to, or None.
    mark:
        Name of what the asker has put there: who does not see it has another folder of the same name.
    """
    return Introduction(
        host=socket.gethostname(),
        python=platform.python_version(),
        versions={name: _version(name) for name in packages},
        devices=_devices(),
        memory_gib=_memory_gib(),
        model=_model_hash(model),
        run_dir=None if run_dir is None else _reach(run_dir, mark),
    )


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _devices() -> list[str]:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _memory_gib() -> float:
    import psutil

    from wsigen.base.machine import memory_limit

    machine, group = int(psutil.virtual_memory().total), memory_limit()
    return round((machine if group is None else min(machine, group)) / 2**30, 1)


def _model_hash(model: str) -> str:
    from wsigen.base.errors import WsigenError
    from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle

    if Path(model).is_absolute() and not Path(model).is_dir():
        return f"none: {model} is not there; workers open a model by the driver's path"
    try:
        folder = find_bundle(model)
        check_bundle(folder)
        return bundle_hash(folder)
    except (WsigenError, OSError) as error:
        return f"none: {error}"


def _reach(place: str, mark: str | None) -> str:
    """Put a value where runs may lie, read it back and remove it; then look for what the asker has put there."""
    from wsigen.base.errors import ConfigError

    try:
        folder = open_nearest(place)
        problem = why_not_usable(folder)
        if not problem and mark and not folder.has(mark):
            problem = "not the folder that the asking process has under this name; is it shared?"
    except (ConfigError, OSError) as error:
        return str(error)
    return f"{folder.name}: {problem}" if problem else "writable"
