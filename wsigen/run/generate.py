"""The main job: a configuration in, a slide with its annotations out.

``generate`` prepares a run directory and works through its stages; ``resume`` goes on with one after any interruption. Both
do the same thing, as what is done is read from the keys of the run's store.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Unpack

from wsigen.base.errors import ConfigError, LayoutError, OutputError, RunError, printable, refusing
from wsigen.run.config import RunConfig, config_of
from wsigen.run.display import showing
from wsigen.run.drawn import check_drawn, put_drawn
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.dispatch import Dispatcher, patiently
from wsigen.run.engine.run import run_independent, run_pass, sweep_passes
from wsigen.run.engine.stage import Notes, Stage, Watcher
from wsigen.run.engine.workers import Workers, demand_main_guard
from wsigen.run.estimate.memory import Projection, allowed_memory, demand_disk, demand_memory, project_run
from wsigen.run.keywords import with_settings
from wsigen.run.machine_file import with_machine
from wsigen.run.output_check import check_output, held_output, try_output
from wsigen.run.outputs import Files, drawn_of, files_of, write_outputs
from wsigen.run.prepare import Prepared, class_map_of_chunk, prepare, prepare_again
from wsigen.run.repair import prepare_pass, with_repairs
from wsigen.run.result import Result
from wsigen.run.rundir import (
    Outcome,
    begin_outputs,
    check_unchanged,
    claim,
    clear,
    demand_free,
    demand_plain,
    demand_sizes,
    demand_usable,
    finished,
    kept_inputs,
    make_run_dir,
    output_of,
    run_dir_of,
    stamp,
)
from wsigen.run.spec import LOCK, RunSpec
from wsigen.run.tasks.context import PassContext, RunContext, run_context
from wsigen.run.tasks.perform import Task
from wsigen.run.typed_settings import ResumeSettings, RunSettings
from wsigen.storage.folder import Folder, Lock
from wsigen.storage.opening import is_url, open_folder


@with_settings(RunSettings.__annotations__)
def generate(
    output: str | Path,
    config: RunConfig | None = None,
    *,
    machine: str | Path | None = None,
    progress: bool = False,
    watch: Watcher | None = None,
    **settings: Unpack[RunSettings],
) -> Result:
    """Generate a slide.

    Parameters
    ----------
    output : str or Path
        The slide, ``*.ome.tiff`` or ``*.ome.tif``; ``.geojson``, ``.json``, ``.jpg``, ``.overlay.jpg`` and ``.groovy`` go
        beside it.
    config : RunConfig, optional
        Settings.
    machine : str or Path, optional
        YAML file of execution settings that you trust; by default your own, ``~/.config/wsigen/machine.yaml``.
    progress : bool
        Show how the run goes on: bars in a terminal or a notebook, lines elsewhere.
    watch : callable, optional
        Called with a ``Stage`` when it begins, after every task and at its end.
    **settings
        Fields of `RunConfig`, e.g. ``layout="regions.geojson"``, ``class_name="Tumor"``, ``size="4096x4096"``; they override
        those of ``config``.

    Returns
    -------
    Result
        The files, and readers for them.

    Raises
    ------
    WsigenError
        For anything wrong with the input, the output or the machine. A run that is interrupted is kept: see `resume`.

    Warns
    -----
    UserWarning
        A line for whatever is to be known of the inputs (`Result.notes`), if neither ``progress`` nor ``watch`` says it.

    Examples
    --------
    >>> wsigen.generate("slide.ome.tiff", layout="regions.geojson", seed=1, progress=True)
    """
    config = with_machine(config_of(config, settings), machine)
    workers = Workers.of(config)
    prepared = prepare_run(Path(output), config, workers)
    if watch is None and not progress:
        for note in prepared.notes:
            warnings.warn(printable(note), stacklevel=2)
    with showing(progress, watch) as look, workers.cluster() as cluster:
        return do_run(prepared, workers, cluster, look)


def prepare_run(output: Path, config: RunConfig, workers: Workers, alone: bool = True) -> Prepared:
    """Check all that a run needs before it begins (WsigenError).

    Parameters
    ----------
    alone : bool
        Whether memory and disk are looked at, too; of several runs at a time, who begins them has looked.
    """
    check_output(output, config.overwrite)
    if config.drawn:
        check_drawn(output, config)
    _spare_inputs(output, config)
    demand_main_guard(workers)
    prepared = prepare(config, output)
    projection = project_run(prepared.spec, prepared.card, prepared.free_layout)
    if alone:
        _demand_resources(prepared, projection, workers, run_dir_of(config, output))
    _demand_tissue(prepared, projection.tissue)
    with held_output(output):  # whoever holds it removes what killed runs left there: a trial looks like that
        try_output(files_of(output), prepared.spec.slide, prepared.card.table)
    return prepared


def do_run(prepared: Prepared, workers: Workers, cluster: Cluster, watch: Watcher | None) -> Result:
    """Do a run, or go on with it if its directory holds a part of the same one.

    Parameters
    ----------
    cluster : Cluster
        This run's own; others may share its workers.
    """
    if watch is not None:
        for note in prepared.notes:
            watch(Stage("prepare", 0, note=note, run=prepared.spec.run_id))
    folder = make_run_dir(run_dir_of(prepared.config, prepared.output), prepared.output)
    with folder.lock(LOCK) as lock:
        claim(folder, prepared)
        return _work(folder, lock, prepared, cluster, workers, watch)


@with_settings(ResumeSettings.__annotations__)
def resume(
    run_dir: str | Path,
    *,
    output: str | Path | None = None,
    machine: str | Path | None = None,
    progress: bool = False,
    watch: Watcher | None = None,
    **settings: Unpack[ResumeSettings],
) -> Result:
    """Go on with a run after any interruption.

    Parameters
    ----------
    run_dir : str or Path
        The run's directory, or its URL in an object store.
    output : str or Path, optional
        Where the slide goes. Needed unless the run's directory is the ``NAME.run`` beside it.
    machine, progress, watch
        As for `generate`.
    **settings
        Execution settings, e.g. ``workers=4``: a run directory does not say where to go on. The others decide the pixels and
        stay.

    Raises
    ------
    ConfigError
        For a setting that cannot change in the middle of a slide.
    RunError
        If the directory holds no run, another driver holds it, its model has changed, or where the slide goes is not known.
    OutputError
        If a file lies there that this run did not write, and ``overwrite`` is not given.
    """
    from wsigen.models.bundle import bundle_hash, check_bundle

    for name in settings.keys() & RunConfig.model_fields.keys() - ResumeSettings.__annotations__:
        raise ConfigError(f"setting '{name}': cannot change when a run goes on; start another run, or leave it out")
    folder = open_folder(run_dir)
    if is_url(folder.name):
        demand_usable(folder)
    with refusing(RunError, f"{folder.name}: cannot be gone on with", "check what the run is made from, or start anew"):
        demand_plain(folder)
        output = output_of(folder, output)
        if finished(folder, output) is not None:
            return _clear_finished(folder, output)
        spec = RunSpec.load(folder)
        config = _config_of_run(folder, spec, settings, machine)
        check_output(output, overwrite=True)
        _spare_inputs(output, spec.settings)
        demand_free(folder, spec, files_of(output), config.overwrite)
        workers = Workers.of(config)
        demand_main_guard(workers)
        card = check_bundle(Path(spec.model))
        check_unchanged(folder, spec, config, bundle_hash(Path(spec.model)))
        prepared = prepare_again(config, card, spec, output)
        demand_sizes(RunContext(folder.name, folder))
    projection = project_run(prepared.spec, prepared.card, prepared.free_layout)
    _demand_resources(prepared, projection, workers, run_dir, folder.size())
    with showing(progress, watch) as look, folder.lock(LOCK) as lock:
        with held_output(output):
            try_output(files_of(output), spec.slide, card.table)
        with workers.cluster() as cluster:
            if look is not None and (note := _moved(spec, workers)):
                look(Stage("prepare", 0, note=note, run=spec.run_id))
            if config.device != spec.device:
                spec.changed(device=config.device).save(folder)
            return _work(folder, lock, prepared, cluster, workers, look)


# -- inside ------------------------------------------------------------------------------------------------------------


def _config_of_run(folder: Folder, spec: RunSpec, given: ResumeSettings, machine: str | Path | None) -> RunConfig:
    """The recipe of a run, with execution settings from the user; device and fate of the run directory stay if not given."""
    kept: Any = {"device": spec.device, "keep_run": spec.keep_run, **kept_inputs(folder, spec.settings), **given}
    config = with_machine(spec.settings.merged(**kept), machine)
    if config.device.split(":")[0] != spec.device.split(":")[0]:
        raise ConfigError(
            f"setting 'device': {config.device!r}, but the run began on {spec.device!r}, which decides bits of its pixels; "
            "leave it out, or start another run"
        )
    return config


def _moved(spec: RunSpec, workers: Workers) -> str:
    """One line if a run began on workers elsewhere and goes on here; which ones they were, no run directory may say."""
    if spec.began == "here" or workers.scheduler is not None:
        return ""
    was, flag = {"scheduler": ("a dask scheduler", "ADDRESS"), "queue": ("jobs of a queue", "FILE.yaml")}[spec.began]
    many = f"{workers.count} worker{'s' if workers.count > 1 else ''}"
    return f"this run began on {was}; it goes on with {many} of this machine: give --scheduler {flag} to use it again"


def _spare_inputs(output: Path, config: RunConfig) -> None:
    """Refuse an output one of whose files is an input of its own, which ``overwrite`` would destroy (OutputError)."""
    written = {path.resolve() for path in (*files_of(output), drawn_of(output))}
    given = (config.layout_classes, config.subtypes, config.reference, config.grid, config.extend, config.regions)
    for path in (config.layout_file, *given):
        if path is not None and path.resolve() in written:
            raise OutputError(f"{path}: is an input and would be written over; choose another name for the slide")


def _demand_resources(
    prepared: Prepared, projection: Projection, workers: Workers, run_dir: str | Path, there: int = 0
) -> None:
    """Refuse a run that needs more memory or disk than there is (ResourceError); ``there``: bytes it has there already."""
    if workers.scheduler is None:
        demand_memory(projection, workers.count, workers.processes, allowed_memory(prepared.config), workers.tasks_at_once)
    demand_disk(projection, run_dir, prepared.output, there)


def _demand_tissue(prepared: Prepared, share: float) -> None:
    """Refuse a slide of nothing but glass (LayoutError); the whole class map is read only if a coarse one finds none."""
    glass = prepared.spec.glass.index
    if prepared.config.regions is not None:
        return  # places may be erased
    if share > 0.0:
        return
    plan = prepared.spec.passes[-1]
    if all((class_map_of_chunk(prepared.layout, plan, ij) == glass).all() for ij in plan.grid):
        if prepared.config.sampled:
            raise LayoutError(f"{prepared.spec.layout_title}: drew nothing but glass; choose another --seed")
        raise LayoutError(f"{prepared.config.layout}: no polygon covers a pixel of the class map; draw larger regions")


def _work(folder: Folder, lock: Lock, prepared: Prepared, cluster: Cluster, workers: Workers, watch: Watcher | None) -> Result:
    """Work through all stages, skipping what is done."""
    spec, config, files = RunSpec.load(folder), prepared.config, files_of(prepared.output)
    look = _while_held(lock, spec, watch)
    cluster.notes.tell = lambda text: look(Stage("prepare", 0, note=text))
    confirm = partial(patiently, lock.confirm, cluster.notes)  # another holder is no trouble with the store: raised at once
    run = run_context(folder.name, spec.hash)
    run.spool.make()
    if config.overwrite:
        begin_outputs(folder, spec, files)
    dispatcher = Dispatcher(run, cluster, workers.window, workers.threads, workers.calls_at_once, confirm, notes=cluster.notes)
    layout = prepared.layout
    try:
        for pass_ in run.passes:
            confirm()
            prepare_pass(pass_, layout, prepared.continued)
        with held_output(files.slide):
            stages = partial(_all_stages, dispatcher, files, config.overwrite, look)
            digest, areas = with_repairs(dispatcher, layout, prepared.continued, stages)
    except BaseException:
        with suppress(Exception):  # what ended the run matters, not whether a scheduler that is gone hears of it
            cluster.cancel()
        raise
    if config.drawn:
        put_drawn(prepared)
    outcome = Outcome(
        run_id=spec.run_id,
        output=files.slide.name,
        files={path.name: stamp(path) for path in files},
        level0_sha256=digest,
        area_px=areas,
        layout=spec.layout_title,
    )
    confirm()
    if config.keep_run:
        sweep_passes(run, cluster.notes)
        run.spool.sweep()
    else:
        clear(folder, outcome)
    return _result(outcome, files, prepared.notes)


def _while_held(lock: Lock, spec: RunSpec, watch: Watcher | None) -> Watcher:
    """Watch under the run's id, and stop at the next task if another driver has taken over (RunError)."""

    def look(stage: Stage) -> None:
        if lock.lost:
            lock.confirm()
        stage.run = spec.run_id
        if watch is not None:
            watch(stage)

    return look


def _clear_finished(folder: Folder, output: Path) -> Result:
    """Go on with a run that was stopped while it was cleared: the slide is there, only the clearing is not done."""
    with folder.lock(LOCK) as lock:
        outcome = finished(folder, output)
        if outcome is None:
            raise RunError(f"{folder.name}: was cleared by another driver just now")
        patiently(lock.confirm, Notes())
        clear(folder, outcome)
        return _result(outcome, files_of(output))


def _result(outcome: Outcome, files: Files, notes: tuple[str, ...] = ()) -> Result:
    return Result(*files, outcome.level0_sha256, outcome.area_px, outcome.layout, notes)


def _all_stages(dispatcher: Dispatcher, files: Files, overwrite: bool, watch: Watcher) -> tuple[str, dict[str, float]]:
    """Denoise every pass, decode, write; each skips what its keys say is done."""
    run = dispatcher.run
    for pass_ in run.passes:
        _encode(dispatcher, pass_, watch)
        run_pass(dispatcher, pass_.plan.index, _stage_name(pass_), watch)
        if pass_.plan.network == "image":
            _calibrate(dispatcher, pass_, watch)
    _decode(dispatcher, run.passes[-1], watch)
    stage = Stage("write slide", len(run.slide.grid), workers=1)
    watch(stage)
    dispatcher.confirm()
    demand_free(run.folder, run.spec, files, overwrite)
    begin = monotonic()

    def note() -> None:
        stage.done += 1
        stage.seconds = monotonic() - begin
        watch(stage)

    def place(made: Files) -> None:
        dispatcher.confirm()
        demand_free(run.folder, run.spec, files, overwrite)
        begin_outputs(run.folder, run.spec, files, made)

    advice = f"what is finished is kept: remove the cause, then 'wsigen resume {run.folder.name}'"
    elsewhere = "; add --output OTHER.ome.tiff to write it elsewhere"
    with refusing(OutputError, f"{files.slide}: cannot be written", advice + elsewhere):
        written = write_outputs(run, files, place, note, dispatcher.notes.tell)
    stage.finished = True
    watch(stage)
    return written


def _encode(dispatcher: Dispatcher, pass_: PassContext, watch: Watcher) -> None:
    if pass_.run.spec.settings.extend is None:
        return
    wanted = [ij for ij in pass_.plan.grid if pass_.reached(ij)]
    done = pass_.state.has_known()
    tasks = [Task("encode", pass_.plan.index, ij) for ij in wanted if ij not in done]
    run_independent(dispatcher, f"encode the slide for pass {pass_.plan.index + 1}", tasks, len(wanted), watch)


def _calibrate(dispatcher: Dispatcher, pass_: PassContext, watch: Watcher) -> None:
    if pass_.state.read_norm() is None:
        task = Task("calibrate", pass_.plan.index, (0, 0))
        run_independent(dispatcher, "calibrate decoder", [task], 1, watch)


def _decode(dispatcher: Dispatcher, pass_: PassContext, watch: Watcher) -> None:
    blocks = dispatcher.run.slide.grid
    dispatcher.run.spool.sweep()
    done = dispatcher.run.spool.done()
    tasks = [Task("decode", pass_.plan.index, ij) for ij in blocks if ij not in done]
    run_independent(dispatcher, "decode", tasks, len(blocks), watch)


def _stage_name(pass_: PassContext) -> str:
    plan = pass_.plan
    size = plan.scale if plan.network == "image" else plan.cell_px
    um = f"{pass_.run.slide.mpp * size:.3g} um"
    what, um = ("denoise", f"{um}/px") if plan.network == "image" else ("draw the grid", f"cells of {um}")
    alike = [p.plan.index for p in pass_.run.passes if p.plan.network == plan.network]
    return f"{what}, level {alike.index(plan.index) + 1} of {len(alike)} ({um})" if len(alike) > 1 else f"{what} ({um})"
