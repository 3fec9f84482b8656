"""What a worker keeps between tasks: the manifest, the open store and the loaded model of a run."""

from __future__ import annotations

import socket
import threading
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ConfigError, RunError, UnfitWorkerError
from wsigen.run.manifest import FILE, Manifest, package_versions, version_differences
from wsigen.run.store import PassState, RunStore
from wsigen.sampling.passes import PassPlan
from wsigen.sampling.plan import CropPlan
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.storage.folder import Folder
from wsigen.storage.opening import open_folder

if TYPE_CHECKING:
    from wsigen.models.model import Model
    from wsigen.slide.reading import ImageSource


class PassContext:
    """One pass as tasks see it: its plan, its schedule, its arrays."""

    def __init__(self, plan: PassPlan, store: RunStore) -> None:
        self.plan, self.schedule = plan, plan.schedule
        self._store = store

    @cached_property
    def state(self) -> PassState:
        """The arrays (they exist once the driver has prepared the pass)."""
        return self._store.open_pass(self.plan.index, self.plan.grid)

    @cached_property
    def norm(self) -> NDArray[np.float64] | None:
        """The decoder statistics of this pass; first asked for after they were written."""
        return self.state.read_norm()

    @cached_property
    def crop_plan(self) -> CropPlan:
        """The crops of every step."""
        return self.plan.crop_plan()


class RunContext:
    """A run as a worker sees it.

    Parameters
    ----------
    run_dir:
        Folder or URL with ``run.json``, ``work-*/state.zarr`` and ``work-*/spool``.
    folder:
        The same, if it is open already.

    Attributes
    ----------
    differences:
        What of this process differs from the run and was let pass (``mixed_workers``), a line each.
    calls_at_once:
        Tasks of this process that may call the model at the same time; None: all. An execution setting, set with every task.
    """

    def __init__(self, run_dir: str | Path, folder: Folder | None = None) -> None:
        self.differences: list[str] = []
        self.calls_at_once: int | None = None
        self.folder = folder or open_folder(run_dir)
        self.manifest = Manifest.load(self.folder)
        work = self.folder.sub(self.manifest.work)
        self.store = RunStore(work.sub("state.zarr"))
        self.passes = [PassContext(PassPlan.from_json(values), self.store) for values in self.manifest.passes]
        self.slide = PyramidSpec(**self.manifest.slide)
        self.spool = Spool(work.sub("spool"))

    @cached_property
    def model(self) -> Model:
        """The run's model, loaded once per process.

        Raises
        ------
        UnfitWorkerError
            If the bundle here is not the run's.
        RunError
            If the run's device is missing here and no other may take its place.
        """
        from wsigen.models.bundle import bundle_hash

        folder = Path(self.manifest.model)
        if not folder.is_dir() or bundle_hash(folder) != self.manifest.model_hash:
            raise UnfitWorkerError(f"{_here()}: {folder} is not the model the run began with; restore it there, or start anew")
        return load_shared_model(self.manifest.model, self._device(), self.manifest.precision)

    def model_slot(self) -> AbstractContextManager[object]:
        """Wait until this task may call the model: enter it with everything read, and write after it."""
        helps = self.model.device != self.manifest.device  # a CPU in an accelerator's place: each of its threads computes
        return self.model.calls.slot(None if helps else self.calls_at_once)

    def _device(self) -> str:
        """The run's device, or *cpu* where it is missing and that is let pass."""
        device = self.manifest.device
        if has_device(device):
            return device
        problem = f"no {device} on {socket.gethostname()}"
        if not self.manifest.mixed:
            raise RunError(f"{problem}; keep such workers out of the run, or let them help: --mixed-workers warn")
        self.differences.append(f"{problem}: its CPU helps")
        return "cpu"

    @cached_property
    def reference(self) -> ImageSource:
        """The user's reference image."""
        from wsigen.slide.reading import open_image

        return open_image(str(self.manifest.inputs["reference"]))

    @property
    def glass_index(self) -> int | None:
        """The class whose pixels are held at glass."""
        return self.manifest.glass["index"]

    @cached_property
    def glass_latent(self) -> NDArray[np.float32]:
        """The latent of bare glass, float32 ``[C, 1, 1]``."""
        return np.asarray(self.manifest.glass["latent"], dtype=np.float32)[:, None, None]

    @property
    def glass_rgb(self) -> tuple[int, int, int]:
        """The colour of bare glass."""
        red, green, blue = self.manifest.glass["rgb"]
        return red, green, blue


def has_device(device: str) -> bool:
    """Whether this machine has ``device``; one that is busy or full is there all the same."""
    if device == "cpu":
        return True  # without the seconds that torch takes
    import torch

    kind, _, number = device.partition(":")
    if kind == "cuda":
        return torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError):  # torch built without it asserts
        return False
    return True


_loading = threading.Lock()


def load_shared_model(path: str, device: str, precision: str) -> Model:
    """Load a model once per process, whatever the number of runs and threads that use it."""
    with _loading:
        files = sorted(p for p in Path(path).rglob("*") if p.is_file())
        stamp = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
        return _load(path, stamp, device, precision)


@lru_cache(maxsize=2)
def _load(path: str, stamp: tuple[tuple[str, int, int], ...], device: str, precision: str) -> Model:
    """``stamp`` (sizes and times of all files) makes new weights under an old name a new entry."""
    from wsigen.models.model import load_model

    return load_model(Path(path), device, precision)


_MOST_CONTEXTS = 4
_contexts: dict[tuple[str, str, str], RunContext] = {}
_contexts_lock = threading.Lock()


def run_context(run_dir: str, run_hash: str) -> RunContext:
    """The context of a run in this process; a run directory made anew gives a new one.

    Raises
    ------
    UnfitWorkerError
        If there is no run, or one whose manifest is not the one of ``run_hash``.
    RunError
        If a package that decides bits has another version here.
    OSError
        If the place cannot be reached for now.
    """
    try:
        with _contexts_lock:
            folder = _opened(run_dir)
        key = (run_dir, run_hash, folder.stamp(FILE))
        with _contexts_lock:
            if key not in _contexts:
                while len(_contexts) >= _MOST_CONTEXTS:
                    _contexts.pop(next(iter(_contexts)))
                _contexts[key] = _same_run(RunContext(run_dir, folder), run_hash)
            run = _contexts[key]
    except (FileNotFoundError, NotADirectoryError, PermissionError, ConfigError, RunError) as error:
        raise UnfitWorkerError(f"{_here()}: cannot open the run ({error})") from None
    _demand_versions(run)
    return run


@lru_cache(maxsize=_MOST_CONTEXTS)
def _opened(run_dir: str) -> Folder:
    """A run's folder, opened once per process: in an object store every opening is a client of its own."""
    return open_folder(run_dir)


def _same_run(run: RunContext, run_hash: str) -> RunContext:
    if run.manifest.hash != run_hash:
        raise RunError(f"{run.folder.name}/{FILE} is not the driver's; do they share the file system?")
    found = version_differences(run.manifest, package_versions())
    run.differences += [f"{socket.gethostname()} has {', '.join(found)}"] if found else []
    return run


def _demand_versions(run: RunContext) -> None:
    if run.differences and not run.manifest.mixed:
        raise RunError(
            f"{run.differences[0]}, which may change pixels; install one version everywhere ('wsigen worker-check' compares "
            "them), or let such workers help: --mixed-workers warn"
        )


def _here() -> str:
    return f"worker on {socket.gethostname()}"
