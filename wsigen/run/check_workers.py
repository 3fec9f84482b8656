"""Whether the workers of a dask cluster can do a run together: ``wsigen worker-check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsigen.base.errors import BundleError
from wsigen.models.bundle import find_bundle
from wsigen.run.manifest import DECIDING
from wsigen.run.tasks.introduce import Introduction, introduce
from wsigen.storage.files import leftover_name
from wsigen.storage.folder import MANIFEST
from wsigen.storage.opening import absolute_place, open_nearest

if TYPE_CHECKING:
    from wsigen.run.engine.cluster import Size


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What the workers of a cluster said, and what stands against using them together.

    Attributes
    ----------
    workers:
        Answer by address.
    problems:
        One line each; none means that a run can start.
    hints:
        What would make a run faster, a line each.
    """

    workers: Mapping[str, Introduction]
    problems: list[str]
    hints: list[str] = field(default_factory=list)


def check_workers(scheduler: str, model: str = "default", run_dir: str | Path | None = None) -> WorkerReport:
    """Ask every worker of a running cluster about itself, and compare the answers with this process.

    Parameters
    ----------
    scheduler:
        Address of the scheduler, e.g. ``tcp://host:8786``.
    model:
        The bundle a run would use.
    run_dir:
        A folder or URL that driver and workers must share, or None.

    Raises
    ------
    ResourceError
        If no scheduler answers, or wsigen is missing on a worker.
    """
    from wsigen.run.engine.opening import open_cluster

    place = None if run_dir is None else str(absolute_place(run_dir))
    model = _path_of(model)
    here = introduce(DECIDING, model, place)
    with open_cluster(0, True, scheduler) as cluster, _marked(place if here.run_dir == "writable" else None) as mark:
        answers: dict[str, Introduction] = cluster.ask_all(introduce, DECIDING, model, place, mark)
        hints = _hints(answers, cluster.sizes())
    return WorkerReport(answers, [*_differences(here, answers), *_own_problems(here, answers)], hints)


def _path_of(model: str) -> str:
    """The absolute path of a bundle, by which a driver here would tell the workers of it; its name if there is none."""
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
    folder, mark = open_nearest(place), leftover_name(MANIFEST)
    folder.write(mark, b"wsigen")
    try:
        yield mark
    finally:
        with suppress(OSError):
            folder.delete(mark)


def _differences(here: Introduction, answers: Mapping[str, Introduction]) -> list[str]:
    """What is not the same everywhere."""
    if not answers:
        return ["the scheduler has no workers: start some with 'dask worker ADDRESS'"]
    found = []
    for name in DECIDING:
        for version, count in sorted(Counter(a.versions[name] for a in answers.values()).items()):
            if version != here.versions[name]:
                found.append(f"{name} is {version} on {count} worker(s), {here.versions[name]} here: install one version")
    for model, count in sorted(Counter(a.model for a in answers.values()).items()):
        if model != here.model and not model.startswith("none"):
            found.append(f"the model of {count} worker(s) is another one ({model[:12]}, here {here.model[:12]}): copy it again")
    kinds = Counter("accelerator" if len(a.devices) > 1 else "cpu" for a in answers.values())
    if len(kinds) > 1:
        found.append(f"{kinds['accelerator']} worker(s) with an accelerator, {kinds['cpu']} without: run on one kind alone")
    return found


def _own_problems(here: Introduction, answers: Mapping[str, Introduction]) -> list[str]:
    """What a process says of itself."""
    found = []
    for address, answer in {"this process": here, **answers}.items():
        if answer.model.startswith("none"):
            found.append(f"{address}: no model ({answer.model.removeprefix('none: ')})")
        if answer.run_dir not in (None, "writable"):
            found.append(
                f"{address}: cannot use the run directory ({answer.run_dir}); choose a shared folder or an object store"
            )
    return found


def _hints(answers: Mapping[str, Introduction], sizes: Mapping[str, Size]) -> list[str]:
    """Workers whose accelerators wait: while the only thread reads and writes, or as a process computes on one alone."""
    found = []
    for name, answer in sorted(answers.items()):
        size = sizes.get(name)
        if size is None or len(answer.devices) == 1:
            continue
        if size.gpus > 1:
            found.append(
                f"{name}: declares {size.gpus} GPUs, of which one process uses one; "
                "start a worker for each, with CUDA_VISIBLE_DEVICES and --resources GPU=1"
            )
        if size.threads == 1:
            found.append(
                f"{name}: one thread for an accelerator, which waits while it reads and writes; "
                "start it with --nthreads 2 --resources GPU=1"
            )
    return found
