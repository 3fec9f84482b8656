"""The main job: a configuration in, a slide with its annotations out.

``generate`` prepares a run directory and works through its stages; ``resume`` goes on with one after any interruption. Both
do the same thing, as what is done is read from the keys of the run's store.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.config import RunConfig, make_config
from wsigen.engine.memory import demand_disk, demand_memory
from wsigen.engine.run import Dispatcher, Stage, Watcher, half_step_of_key, run_independent, run_pass
from wsigen.errors import DamagedChunkError, OutputError, RunError
from wsigen.layout.layout import Layout
from wsigen.manifest import FILE, Manifest, driver_lock, first_difference
from wsigen.outputs import files_of, write_outputs
from wsigen.preparation import (
    Prepared,
    class_map_of_chunk,
    keep_inputs,
    kept_input,
    prepare,
    reread_layout,
)
from wsigen.projection import allowed_memory, project_run
from wsigen.tasks.context import PassContext, RunContext, run_context
from wsigen.tasks.perform import Task


@dataclass(frozen=True, slots=True)
class Result:
    """A finished slide and the files beside it.

    Attributes
    ----------
    slide, annotations, manifest, thumbnail, script:
        Paths of the OME-TIFF, GeoJSON, JSON, PNG and QuPath script.
    level0_sha256:
        SHA-256 over the encoded tiles of level 0, the slide's identity in pixels.
    area_px:
        Pixels of each class at full resolution.
    """

    slide: Path
    annotations: Path
    manifest: Path
    thumbnail: Path
    script: Path
    level0_sha256: str
    area_px: dict[str, float]


@dataclass(frozen=True, slots=True)
class Workers:
    """Where the work is done: execution settings only, none of which changes a pixel."""

    count: int
    processes: bool
    threads: int
    scheduler: str | None
    window: int

    @classmethod
    def of(cls, config: RunConfig) -> Workers:
        """Fill in defaults: one single-threaded worker per core, as threads of this process; one worker a GPU."""
        cores = len(os.sched_getaffinity(0))
        accelerated = not config.device.startswith("cpu")
        count = config.workers or (1 if accelerated else cores)
        threads = config.threads or 1
        return cls(count, config.processes, threads, config.scheduler, config.window)


def generate(
    output: str | Path, config: RunConfig | None = None, *, watch: Watcher | None = None, **settings: Any
) -> Result:
    """Generate a slide.

    Parameters
    ----------
    output:
        Path of the slide, ``*.ome.tiff`` or ``*.ome.tif``; ``.geojson``, ``.json``, ``.png`` and ``.groovy`` go beside it.
    config:
        All settings; or give them one by one.
    watch:
        Called with a ``Stage`` after every task.
    settings:
        Fields of ``RunConfig``, e.g. ``layout="regions.geojson"``, ``class_name="Tumor"``, ``size="4096x4096"``.

    Raises
    ------
    WsigenError
        For anything wrong with the input, the output or the machine; an interrupted run is kept and can be resumed.
    """
    config = config or make_config(settings)
    output = Path(output)
    check_output(output, config.overwrite)
    prepared = prepare(config, output)
    run_dir = run_dir_of(config, output)
    projection = project_run(prepared.manifest, prepared.card, prepared.layout)
    workers = Workers.of(config)
    if workers.scheduler is None:
        demand_memory(projection, workers.count, workers.processes, allowed_memory(config))
    demand_disk(projection, run_dir, output)
    _make_run_dir(run_dir)
    with driver_lock(run_dir):
        _claim(run_dir, prepared)
        return _work(run_dir, prepared.layout, config, workers, watch)


def resume(run_dir: str | Path, *, watch: Watcher | None = None, **execution: Any) -> Result:
    """Go on with a run after any interruption.

    Parameters
    ----------
    run_dir:
        The run's directory.
    execution:
        Execution settings that replace those of the first start: ``workers``, ``processes``, ``threads``, ``scheduler``,
        ``window``, ``keep_run``.

    Raises
    ------
    RunError
        If the directory holds no run, another driver holds it, or its model has changed.
    """
    from wsigen.models.bundle import bundle_hash, check_bundle

    run_dir = Path(run_dir)
    manifest = Manifest.load(run_dir)
    given = {key: value for key, value in manifest.settings.items() if value is not None}
    given.update({key: value for key, value in execution.items() if value is not None})
    for key in ("layout", "layout_classes"):
        kept = kept_input(Path(given[key]) if key in given else None, run_dir)
        if kept is not None:
            given[key] = str(kept)
    config = make_config(given)
    folder = Path(manifest.model)
    card = check_bundle(folder)
    if bundle_hash(folder) != manifest.model_hash:
        raise RunError(f"{run_dir}: the model at {folder} has changed since the run began; restore it or start anew")
    with driver_lock(run_dir):
        layout = reread_layout(config, card, manifest)
        return _work(run_dir, layout, config, Workers.of(config), watch)


def run_dir_of(config: RunConfig, output: Path) -> Path:
    """Where the state of a run lies: as set, or ``NAME.run`` beside the slide."""
    return config.run_dir or output.absolute().with_name(files_of(output).base + ".run")


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before anything is computed (OutputError)."""
    files = files_of(output)
    folder = output.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: not writable; choose another place for the slide")
    for path in files.all:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; choose another name for the slide")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; add --overwrite to replace it or choose another name")


# -- inside ------------------------------------------------------------------------------------------------------------


def _make_run_dir(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run_dir}: cannot be made ({error.strerror}); choose another --run-dir") from None


def _claim(run_dir: Path, prepared: Prepared) -> None:
    """Make a new run, or make sure that the one there is this one."""
    if (run_dir / FILE).exists():
        there = Manifest.load(run_dir)
        difference = first_difference(prepared.manifest.identity, there.identity)
        if difference:
            raise RunError(
                f"{run_dir}: holds another run ({difference}); resume it, delete it, or choose another --run-dir"
            )
        if there.output != prepared.manifest.output:
            prepared.manifest.save(run_dir)
        return
    foreign = sorted(p.name for p in run_dir.iterdir() if p.name not in {"driver.lock", "inputs"})
    if foreign:
        raise RunError(f"{run_dir}: is not empty and not a run (it holds {foreign[0]!r}); choose another --run-dir")
    keep_inputs(prepared, run_dir)
    prepared.manifest.save(run_dir)


def _work(run_dir: Path, layout: Layout, config: RunConfig, workers: Workers, watch: Watcher | None) -> Result:
    """Work through all stages, skipping what is done."""
    watch = watch or _silent
    manifest = Manifest.load(run_dir)
    run = run_context(str(run_dir.absolute()), manifest.hash)
    (run_dir / "spool").mkdir(exist_ok=True)
    with _cluster(workers) as cluster:
        dispatcher = Dispatcher(run, cluster, workers.window, workers.threads)
        try:
            for part in run.passes:
                _prepare_pass(run, part, layout)
                run_pass(dispatcher, part.plan.index, f"denoise {_level_name(run, part)}", watch)
                _finish_pass(dispatcher, part, watch)
        except BaseException:
            cluster.cancel()
            raise
    files = files_of(Path(manifest.output))
    watch(Stage("write slide", 1))
    digest, areas = write_outputs(run, files)
    watch(Stage("write slide", 1, done=1, finished=True))
    if not config.keep_run:
        shutil.rmtree(run_dir)
    return Result(files.slide, files.annotations, files.manifest, files.thumbnail, files.script, digest, areas)


def _cluster(workers: Workers) -> AbstractContextManager[Any]:
    from wsigen.engine.cluster import open_cluster

    return open_cluster(workers.count, workers.processes, workers.scheduler)


def _prepare_pass(run: RunContext, part: PassContext, layout: Layout) -> None:
    """Make a pass's arrays and write its class map; done once, marked by the activity written last."""
    plan = part.plan
    if run.store.has_pass(plan.index):
        return
    card_channels = len(run.manifest.glass["latent"])
    state = run.store.create_pass(plan.index, plan.grid, card_channels, plan.steps, plan.side)
    for ij in plan.grid:
        state.write_classes(ij, class_map_of_chunk(layout, plan, ij))
    state.write_activity(_activity(run, part))


def _activity(run: RunContext, part: PassContext) -> np.ndarray:
    """Which chunks have a pixel to denoise in them or within half a crop of them."""
    from wsigen.tasks.state import held_pixels

    grid = part.plan.grid
    active = np.zeros((grid.rows, grid.columns), dtype=bool)
    for ij in grid:
        reach = grid.box(ij).dilate(part.state.margin).intersect(grid.canvas)
        active[ij] = not held_pixels(run, part, reach).all()
    return active


def _finish_pass(dispatcher: Dispatcher, part: PassContext, watch: Watcher) -> None:
    """Calibrate, and decode after the last pass; a damaged last state is made again from what is kept for it."""
    mended: set[str] = set()
    while True:
        try:
            _calibrate(dispatcher, part, watch)
            if part is dispatcher.run.passes[-1]:
                _decode(dispatcher, part, watch)
            return
        except DamagedChunkError as damage:
            if damage.key in mended:
                raise
            mended.add(damage.key)
            part.state.delete(*half_step_of_key(damage.key))
            dispatcher.drain()
            run_pass(dispatcher, part.plan.index, f"mend {_level_name(dispatcher.run, part)}", watch)


def _calibrate(dispatcher: Dispatcher, part: PassContext, watch: Watcher) -> None:
    if part.state.read_norm() is None:
        task = Task("calibrate", part.plan.index, (0, 0))
        run_independent(dispatcher, "calibrate decoder", [task], 1, watch)


def _decode(dispatcher: Dispatcher, part: PassContext, watch: Watcher) -> None:
    blocks = dispatcher.run.slide.grid
    done = dispatcher.run.spool.done()
    tasks = [Task("decode", part.plan.index, ij) for ij in blocks if ij not in done]
    run_independent(dispatcher, "decode", tasks, len(blocks), watch)


def _level_name(run: RunContext, part: PassContext) -> str:
    return f"{10.0 / (run.slide.mpp * part.plan.scale):.3g}x"


def _silent(stage: Stage) -> None:
    """Watch nothing."""


