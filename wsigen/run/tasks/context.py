"""What a worker keeps between tasks: the specification, the open store and the loaded model of a run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ConfigError, RunError, UnfitWorkerError
from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.grids.grid import Grid, known_means, standardised_cells
from wsigen.grids.opening import open_grid
from wsigen.run.arrays import PassArrays
from wsigen.run.given_grid import kept_grid
from wsigen.run.spec import RunSpec, Sampling, package_versions, version_differences
from wsigen.run.store import PassState, RunStore
from wsigen.sampling.known import GLASS, NEVER, Known, Starts
from wsigen.sampling.passes import PassPlan
from wsigen.sampling.plan import CropPlan
from wsigen.sampling.schedule import hold
from wsigen.slide.resample import mean_taps
from wsigen.slide.spool import Spool
from wsigen.storage.folder import RUN_SPEC, Folder
from wsigen.storage.opening import open_folder

if TYPE_CHECKING:
    from wsigen.models.card import GridCondition, GridNetwork
    from wsigen.models.model import Denoiser, Model
    from wsigen.slide.placed import PlacedImage
    from wsigen.slide.reading import ImageSource

Array = NDArray[np.float32]


DECODER_REACH = {"none": 192, "middle": 704, "more": 320}
"""How far from what is denoised a decoder looks, latent px, by its attention: a window, its halo, the windows attended to."""

HELD_BYTES = 96 * 2**20
"""Of a user's grid that is kept in memory: 200 x 200 cells of 1,024 numbers, those of a large slide."""


class PassContext:
    """One pass as tasks see it: its plan, its arrays, and its state with all that is known in place.

    Parameters
    ----------
    run : RunContext
        The run it belongs to.
    plan : PassPlan
        What the specification says of it.
    """

    def __init__(self, run: RunContext, plan: PassPlan) -> None:
        self.run, self.plan = run, plan
        self._reached: dict[tuple[int, int], bool] = {}

    @cached_property
    def state(self) -> PassState:
        """The arrays (they exist once the driver has prepared the pass)."""
        return self.run.store.open_pass(self.arrays)

    @property
    def arrays(self) -> PassArrays:
        """What decides its arrays."""
        plan, history = self.plan, self.sampling.looks_back
        continues = self.run.spec.settings.extend is not None
        return PassArrays(plan.index, plan.grid, len(self.glass), plan.steps, plan.side, history, continues)

    @cached_property
    def norm(self) -> NDArray[np.float64] | None:
        """The decoder statistics of this pass; first asked for after they were written."""
        return self.state.read_norm()

    @cached_property
    def crop_plan(self) -> CropPlan:
        """The crops of every step."""
        return self.plan.crop_plan()

    @cached_property
    def denoiser(self) -> Denoiser:
        """The network of this pass."""
        model = self.run.model
        return model if self.plan.network == "image" else cast("Denoiser", model.grid)

    @property
    def sampling(self) -> Sampling:
        """How this pass is sampled."""
        spec = self.run.spec
        return spec.sampling if self.plan.network == "image" or spec.grid_sampling is None else spec.grid_sampling

    @property
    def glass(self) -> Array:
        """Bare glass on the canvas of this pass, float32 ``(C, 1, 1)``."""
        glass = self.run.spec.glass
        values = glass.latent if self.plan.network == "image" else glass.cell
        return np.asarray(values, dtype=np.float32)[:, None, None]

    def grid_windows(self, boxes: Sequence[Box]) -> list[Array | None]:
        """The grid that the network is told on each of ``boxes``; see `grid_window`."""
        if self.plan.grid_from == "none":
            return [None] * len(boxes)
        if self._told.told == "tokens":
            return [self.grid_window(box) for box in boxes]
        around = reduce(Box.union, boxes)
        whole = cast("Array", self.grid_window(around))  # read once: a part has the same bits in whatever window
        return [whole[(slice(None), *box.relative_to(around).slices)] for box in boxes]

    def grid_window(self, box: Box) -> Array | None:
        """The grid that the network is told on ``box``, standardised, float32; the last channel is "known".

        By channels ``(D + 1, h, w)``, a part for each latent px; by tokens ``(D + 1, m, m)``, m x m parts of a crop. Each part
        is the area mean of the cells under it: of the user's grid, or of the one drawn before, at its last step.
        """
        if self.plan.grid_from == "none":
            return None
        if self.plan.grid_from == "previous":
            values, known = self._drawn(box)
        else:
            values, known = self._given_tokens(box) if self._told.told == "tokens" else self._given(box)
        return np.concatenate([values, known[None].astype(np.float32)])

    @property
    def _told(self) -> GridCondition:
        return cast("GridCondition", self.denoiser.card.grid)

    def _given_tokens(self, box: Box) -> tuple[Array, NDArray[np.bool_]]:
        """The parts of a square window, each standardised over its own numbers."""
        um = self.plan.cell_px * self.run.slide.mpp
        parts = self._told.parts[self.plan.level]
        window = Box(0, 0, parts, parts)
        values, known = self.run.given_grid.window(window, box.height * um / parts, (box.y0 * um, box.x0 * um))
        return standardised_cells(values, known), known

    def _given(self, box: Box) -> tuple[Array, NDArray[np.bool_]]:
        values, known = self.run.given_grid.window(box, self.plan.cell_px * self.run.slide.mpp)
        told = self._told
        mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (told.mean, told.std))
        return np.where(known, (values - mean) / std, np.float32(0)), known

    def _drawn(self, box: Box) -> tuple[Array, NDArray[np.bool_]]:
        drawn = next(p for p in reversed(self.run.passes[: self.plan.index]) if p.plan.network == "grid")
        factor = self.plan.cell_px / drawn.plan.cell_px
        down = mean_taps(box.y0, box.y1, factor, drawn.plan.height)
        across = mean_taps(box.x0, box.x1, factor, drawn.plan.width)
        (y0, y1), (x0, x1) = down.span, across.span
        cells, _ = drawn.read(drawn.plan.steps, Box(y0, x0, y1, x1))
        values, known = known_means(cells, np.ones(cells.shape[1:], dtype=bool), down, across)
        noise = 0.0 if self.plan.network == "image" else self._network.noise
        if noise > 0.0:
            values = values + np.float32(noise) * normal_field(
                self.sampling.seed, Stream.TOLD, box, len(values), self.plan.index
            )
        return values, known

    @property
    def _network(self) -> GridNetwork:
        return cast("GridNetwork", cast("GridCondition", self.run.model.card.grid).network)

    def starts(self, box: Box) -> Starts:
        """The step from which each pixel of ``box`` is denoised, uint16 ``(h, w)`` (`wsigen.sampling.known`)."""
        if self.arrays.known:
            return self.state.read_starts(box)
        classes = self.state.read_classes(box)
        glass = self.run.spec.glass.index
        bare = np.zeros(classes.shape, dtype=bool) if glass is None else classes == glass
        return np.where(bare, np.uint16(GLASS), np.uint16(0))

    def bare(self, box: Box) -> NDArray[np.bool_]:
        """Where bare glass is on ``box``, bool ``(h, w)``: it is put into the picture as it is."""
        return np.asarray(self.starts(box) == GLASS)

    def known(self, box: Box) -> Known:
        """What is known on ``box``: bare glass, and pixels of the slide that is continued."""
        starts = self.starts(box)
        if not ((starts > 0) & (starts != GLASS)).any():
            return Known(self.glass, starts)
        x0 = self.state.read_known(box, self.reached)
        return Known(np.where(starts == GLASS, self.glass, x0), starts)

    def reached(self, ij: tuple[int, int]) -> bool:
        """Whether a chunk has pixels of a slide that what is denoised or decoded may read: only then its latents are kept."""
        if ij not in self._reached:
            starts = self.starts(self.plan.grid.box(ij))
            known = bool(((starts > 0) & (starts != GLASS)).any())
            self._reached[ij] = known and self.near_free(self.plan.grid.box(ij))
        return self._reached[ij]

    def near_free(self, box: Box) -> bool:
        """Whether a pixel that is denoised lies on a box or so near that the box is read for it."""
        around = box.dilate(self._reach).intersect(self.plan.grid.canvas)
        return bool((self.starts(around) < NEVER).any())

    @cached_property
    def _reach(self) -> int:
        """How far from a pixel that is denoised known ones are read, latent px: by crops, told grids, the decoder."""
        px = max(each.side * each.cell_px for each in self.run.spec.passes)
        reach = -(-px // self.plan.cell_px) + 1
        if self.plan.network == "grid":
            return reach
        from wsigen.models.halo import attention_of
        from wsigen.models.network_config import read_config

        return max(reach, DECODER_REACH[attention_of(read_config(Path(self.run.spec.model), "vae"))])

    def start_noise(self, box: Box) -> Array:
        """The start field on ``box``, float32 ``(C, h, w)``."""
        return normal_field(self.run.spec.sampling.seed, Stream.START, box, self.state.channels, level=self.plan.index)

    def read(self, step: int, box: Box) -> tuple[Array, Known]:
        """Read y[step] on ``box``, and what is known there: pixels that are held follow the forward process of their value.

        Returns
        -------
        y, known : ndarray, Known
            float32 ``(C, h, w)``, and the same box.

        Raises
        ------
        DamagedChunkError
            If a chunk is damaged, or a pixel that is not held was never written (a key was missing).
        """
        known = self.known(box)
        held = known.held(step)
        nothing = np.empty((self.state.channels, *box.shape), dtype=np.float32)
        y = nothing if held.all() else self.state.read_latents(step, box)
        if held.any():
            abar = self.plan.schedule.abar[step]
            noise = self.start_noise(box) if abar < 1.0 else np.zeros_like(y)
            y = hold(y, held, known.x0, noise, abar)
        for ij in self.plan.grid.overlapping(box):
            chunk = self.plan.grid.box(ij).intersect(box).relative_to(box)
            self.state.demand_finite(y[(slice(None), *chunk.slices)], 2 * step, ij)
        return y, known


class RunContext:
    """A run as a worker sees it.

    Parameters
    ----------
    run_dir : str or Path
        Folder or URL with ``run.json``, ``work-*/state.zarr`` and ``work-*/spool``.
    folder : Folder, optional
        The same, if it is open already.

    Attributes
    ----------
    differences : list of str
        What of this process differs from the run and was let pass (``mixed_workers``), a line each.
    calls_at_once : int or None
        Tasks of this process that may call the model at the same time; None: all. An execution setting, set with every task.
    """

    def __init__(self, run_dir: str | Path, folder: Folder | None = None) -> None:
        self.differences: list[str] = []
        self.calls_at_once: int | None = None
        self.folder = folder or open_folder(run_dir)
        self.spec = RunSpec.load(self.folder)
        work = self.folder.sub(self.spec.work)
        self.store = RunStore(work.sub("state.zarr"))
        self.passes = [PassContext(self, plan) for plan in self.spec.passes]
        self.slide = self.spec.slide
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

        folder = Path(self.spec.model)
        if not folder.is_dir() or bundle_hash(folder) != self.spec.model_sha256:
            raise UnfitWorkerError(f"{_here()}: {folder} is not the model the run began with; restore it there, or start anew")
        return load_shared_model(self.spec.model, self._device(), self.spec.precision)

    def model_slot(self) -> AbstractContextManager[object]:
        """Wait until this task may call the model: enter it with everything read, and write after it."""
        helps = self.model.device != self.spec.device  # a CPU in an accelerator's place: each of its threads computes
        return self.model.calls.slot(None if helps else self.calls_at_once)

    def _device(self) -> str:
        """The run's device, or *cpu* where it is missing and that is let pass."""
        device = self.spec.device
        if has_device(device):
            return device
        problem = f"no {device} on {socket.gethostname()}"
        if not self.spec.mixed:
            raise RunError(f"{problem}; keep such workers out of the run, or let them help: --mixed-workers warn")
        self.differences.append(f"{problem}: its CPU helps")
        return "cpu"

    @cached_property
    def given_grid(self) -> Grid:
        """The user's grid (RunError if another one lies in its place)."""
        grid = open_grid(kept_grid(self.folder, self.spec.given_grid)).held(HELD_BYTES)
        x, y, _, _ = self.spec.settings.region or (0, 0, 0, 0)
        return grid.part(y * self.slide.mpp, x * self.slide.mpp)

    @cached_property
    def continued(self) -> PlacedImage:
        """The slide whose pixels are known, where it lies on this one."""
        from wsigen.run.continued import placed_slide

        return placed_slide(self.spec.settings, self.slide.mpp)

    @cached_property
    def reference(self) -> ImageSource:
        """The user's reference image."""
        from wsigen.slide.reading import open_image

        return open_image(str(self.spec.settings.reference))


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
        If there is no run, or one whose specification is not the one of ``run_hash``.
    RunError
        If a package that decides bits has another version here.
    OSError
        If the place cannot be reached for now.
    """
    try:
        with _contexts_lock:
            folder = _opened(run_dir)
        key = (run_dir, run_hash, folder.stamp(RUN_SPEC))
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
    if run.spec.hash != run_hash:
        raise RunError(f"{run.folder.name}/{RUN_SPEC} is not the driver's; do they share the file system?")
    differences = version_differences(run.spec, package_versions())
    run.differences += [f"{socket.gethostname()} has {', '.join(differences)}"] if differences else []
    return run


def _demand_versions(run: RunContext) -> None:
    if run.differences and not run.spec.mixed:
        raise RunError(
            f"{run.differences[0]}, which may change pixels; install one version everywhere ('wsigen worker-check' compares "
            "them), or let such workers help: --mixed-workers warn"
        )


def _here() -> str:
    return f"worker on {socket.gethostname()}"
