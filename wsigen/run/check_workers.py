"""Whether the workers of a dask cluster can do a run together: ``wsigen worker-check``.

Every worker describes itself (`describe_worker` runs there); the answers are compared with this process.
"""

from __future__ import annotations

import platform
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsigen.base.errors import BundleError, ConfigError, WsigenError
from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle
from wsigen.run.spec import DECIDING, package_versions
from wsigen.storage.files import leftover_name
from wsigen.storage.folder import RUN_SPEC
from wsigen.storage.opening import absolute_place, open_nearest, why_not_usable

if TYPE_CHECKING:
    from wsigen.run.engine.cluster import Size


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker's answer: what must be alike on all workers of a run, and what it can reach.

    Attributes
    ----------
    host, python : str
        Name of its machine, version of Python.
    versions : dict
        Of the packages that decide bits, ``"missing"`` where one is.
    devices : list of str
        ``cpu`` and the accelerators torch sees there.
    memory_gib : float
        Memory of its machine, or what its control groups allow (a container, a job of a queue), GiB.
    model : str
        SHA-256 of the bundle, or why it has none (``"none: ..."``).
    run_dir : str or None
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


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What the workers of a cluster answered, and what stands against using them together.

    Attributes
    ----------
    workers : Mapping
        Answer by address.
    problems : list of str
        One line each; none means that a run can start.
    hints : list of str
        What would make a run faster, a line each.
    """

    workers: Mapping[str, WorkerInfo]
    problems: list[str]
    hints: list[str] = field(default_factory=list)


def check_workers(scheduler: str, model: str = "default", run_dir: str | Path | None = None) -> WorkerReport:
    """Ask every worker of a running cluster about itself, and compare the answers with this process.

    Parameters
    ----------
    scheduler : str
        Address of the scheduler, e.g. ``tcp://host:8786``.
    model : str
        The bundle a run would use.
    run_dir : str or Path or None
        A folder or URL that driver and workers must share.

    Raises
    ------
    ResourceError
        If no scheduler answers, or wsigen is missing on a worker.
    """
    from wsigen.run.engine.workers import Workers, open_cluster

    place = None if run_dir is None else str(absolute_place(run_dir))
    model = _path_of(model)
    here = describe_worker(model, place)
    workers = Workers(0, True, scheduler=scheduler)
    with open_cluster(workers) as cluster, _marked(place if here.run_dir == "writable" else None) as mark:
        answers: dict[str, WorkerInfo] = cluster.ask_all(describe_worker, model, place, mark)
        hints = _hints(answers, cluster.sizes())
    return WorkerReport(answers, [*_differences(here, answers), *_own_problems(here, answers)], hints)


def describe_worker(model: str, run_dir: str | None, mark: str | None = None) -> WorkerInfo:
    """Describe the process it runs in.

    Parameters
    ----------
    model : str
        Name, folder or hub id of the bundle; the asker's absolute path, if it has one, as tasks will name it.
    run_dir : str or None
        A folder or URL the worker must be able to write to.
    mark : str or None
        Name of what the asker has put there: who does not see it has another folder of the same name.
    """
    versions = package_versions()
    return WorkerInfo(
        host=socket.gethostname(),
        python=platform.python_version(),
        versions={name: versions[name] for name in DECIDING},
        devices=_devices(),
        memory_gib=_memory_gib(),
        model=_model_hash(model),
        run_dir=None if run_dir is None else _reach(run_dir, mark),
    )


# -- the answer of a process -------------------------------------------------------------------------------------------


def _devices() -> list[str]:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _memory_gib() -> float:
    import psutil

    from wsigen.base.machine import memory_limit

    machine, group = int(psutil.virtual_memory().total), memory_limit()
    return round((machine if group is None else min(machine, group)) / 2**30, 1)


def _model_hash(model: str) -> str:
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
    try:
        folder = open_nearest(place)
        problem = why_not_usable(folder)
        if not problem and mark and not folder.has(mark):
            problem = "not the folder that the asking process has under this name; is it shared?"
    except (ConfigError, OSError) as error:
        return str(error)
    return f"{folder.name}: {problem}" if problem else "writable"


# -- comparing the answers ---------------------------------------------------------------------------------------------


def _path_of(model: str) -> str:
    """The absolute path of a bundle, by which a driver here would name it to the workers; its name if there is none."""
    try:
        return str(find_bundle(model).absolute())
    except BundleError:
        return model


@contextmanager
def _marked(place: str | None) -> Iterator[str | None]:
    """Put something where the run will be, for the workers to find; its name."""
    if place is None:
        yield None
        return
    folder, mark = open_nearest(place), leftover_name(RUN_SPEC)
    folder.write(mark, b"wsigen")
    try:
        yield mark
    finally:
        with suppress(OSError):
            folder.delete(mark)


def _differences(here: WorkerInfo, answers: Mapping[str, WorkerInfo]) -> list[str]:
    """What is not the same everywhere."""
    if not answers:
        return ["the scheduler has no workers: start some with 'dask worker ADDRESS'"]
    lines = []
    for name in DECIDING:
        for version, count in sorted(Counter(a.versions[name] for a in answers.values()).items()):
            if version != here.versions[name]:
                lines.append(f"{name} is {version} on {count} worker(s), {here.versions[name]} here: install one version")
    for model, count in sorted(Counter(a.model for a in answers.values()).items()):
        if model != here.model and not model.startswith("none"):
            lines.append(f"the model of {count} worker(s) is another one ({model[:12]}, here {here.model[:12]}): copy it again")
    kinds = Counter("accelerator" if len(a.devices) > 1 else "cpu" for a in answers.values())
    if len(kinds) > 1:
        lines.append(f"{kinds['accelerator']} worker(s) with an accelerator, {kinds['cpu']} without: run on one kind alone")
    return lines


def _own_problems(here: WorkerInfo, answers: Mapping[str, WorkerInfo]) -> list[str]:
    """What a process lacks, whatever the others have."""
    lines = []
    for address, answer in {"this process": here, **answers}.items():
        if answer.model.startswith("none"):
            lines.append(f"{address}: no model ({answer.model.removeprefix('none: ')})")
        if answer.run_dir not in (None, "writable"):
            lines.append(
                f"{address}: cannot use the run directory ({answer.run_dir}); choose a shared folder or an object store"
            )
    return lines


def _hints(answers: Mapping[str, WorkerInfo], sizes: Mapping[str, Size]) -> list[str]:
    """Workers whose accelerators wait: while the only thread reads and writes, or as a process computes on one alone."""
    lines = []
    for name, answer in sorted(answers.items()):
        size = sizes.get(name)
        if size is None or len(answer.devices) == 1:
            continue
        if size.gpus > 1:
            lines.append(
                f"{name}: declares {size.gpus} GPUs, of which one process uses one; "
                "start a worker for each, with CUDA_VISIBLE_DEVICES and --resources GPU=1"
            )
        if size.threads == 1:
            lines.append(
                f"{name}: one thread for an accelerator, which waits while it reads and writes; "
                "start it with --nthreads 2 --resources GPU=1"
            )
    return lines
