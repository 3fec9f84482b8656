"""``wsigen generate``, ``estimate``, ``resume`` and ``worker-check``."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsigen.base.errors import one_line
from wsigen.cli.log import belongs_to, progress, tell

if TYPE_CHECKING:
    from wsigen.run.engine.stage import Stage, Watcher
    from wsigen.run.result import Result

Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file with settings below that say what is made, from anybody; options go before it"),
]
Machine = Annotated[
    Path | None,
    typer.Option("--machine", help="YAML file that you trust with settings of where and how; else your own machine.yaml"),
]
Log = Annotated[Literal["text", "json"] | None, typer.Option("--log", help="progress as lines, or as lines of JSON")]
RunDir = Annotated[str, typer.Argument(metavar="RUN_DIR", help="directory or URL of a run", show_default=False)]


def generate(
    ctx: typer.Context,
    output: Annotated[Path, typer.Argument(metavar="OUT.ome.tiff", help="the slide; annotations and pictures go beside it")],
    config: Config = None,
    machine: Machine = None,
    log: Log = None,
) -> None:
    """Generate a synthetic slide from a layout, a class or a reference."""
    from wsigen.run.config import make_config
    from wsigen.run.machine_file import with_machine

    settings = with_machine(make_config(ctx.obj, config), machine)  # before anything heavier is imported
    from wsigen.run.generate import generate
    from wsigen.run.rundir import run_dir_of

    place = run_dir_of(settings, output)
    with _watched(place, _go_on(place, output if settings.run_dir else None, machine, ctx.obj), log) as watch:
        result = generate(output, settings, watch=watch)
    _print(result, watch.seconds)


def decompress(
    ctx: typer.Context,
    grid: Annotated[Path, typer.Argument(metavar="X.wsz", help="what 'wsigen compress' wrote", show_default=False)],
    output: Annotated[Path, typer.Argument(metavar="OUT.ome.tiff", help="the slide", show_default=False)],
    original: Annotated[
        Path | None, typer.Option("--original", help="the slide that was compressed: says how near one can come")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="folder for the figures and a picture of the grids")] = None,
    machine: Machine = None,
    log: Log = None,
) -> None:
    """Draw a slide again from its grid, coarse to fine, and say how far it agrees with it. It is synthetic."""
    from wsigen.evaluation.decompress import decompress, decompression_config
    from wsigen.run.machine_file import with_machine
    from wsigen.run.rundir import run_dir_of

    settings = with_machine(decompression_config(grid, **ctx.obj), machine)
    with _watched(run_dir_of(settings, output), shlex.join(["wsigen", *sys.argv[1:]]), log) as watch:  # figures come after it
        result, found = decompress(grid, output, original=original, report=report, machine=machine, watch=watch, **ctx.obj)
    _print(result, watch.seconds)
    print(*found.lines(), sep="\n")


def resume(
    ctx: typer.Context,
    run_dir: RunDir,
    output: Annotated[
        Path | None, typer.Option("--output", help="where the slide goes, if RUN_DIR is not the OUT.run beside it")
    ] = None,
    machine: Machine = None,
    log: Log = None,
) -> None:
    """Go on with a run after any interruption: Ctrl-C, a crash, a killed process."""
    from wsigen.run.generate import resume

    with _watched(run_dir, _go_on(run_dir, output, machine, ctx.obj), log) as watch:
        result = resume(run_dir, output=output, machine=machine, watch=watch, **ctx.obj)
    _print(result, watch.seconds)


def estimate(ctx: typer.Context, config: Config = None, machine: Machine = None) -> None:
    """Say what a slide would cost: model calls, time, memory, disk."""
    from wsigen.run.config import make_config
    from wsigen.run.machine_file import with_machine

    settings = with_machine(make_config(ctx.obj, config), machine)
    from wsigen.run.estimate.estimate import estimate

    print(estimate(settings))


def worker_check(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="of the dask scheduler, e.g. tcp://host:8786")],
    run_dir: Annotated[str | None, typer.Option("--run-dir", help="a folder or URL that all workers must reach")] = None,
    model: Annotated[str, typer.Option("--model", help="the model a run would use")] = "default",
) -> None:
    """Ask every worker of a cluster for versions, device, model and run directory; exit code 1 if they do not fit."""
    from wsigen.run.check_workers import check_workers

    report = check_workers(address, model, run_dir)
    for worker, said in sorted(report.workers.items()):
        versions = ", ".join(f"{name} {version}" for name, version in said.versions.items())
        print(f"{worker}  on {said.host}, {said.memory_gib} GiB, python {said.python}, {versions}")
        print(f"  devices: {', '.join(said.devices)};  model: {said.model[:12]};  run directory: {said.run_dir or 'not asked'}")
    for hint in report.hints:
        print(f"hint: {hint}", file=sys.stderr)
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if report.problems:
        raise SystemExit(1)
    print(f"{len(report.workers)} worker(s) can do a run together")


class Watch:
    """Shows a run, and stops it at the next task even if Ctrl-C arrived where Python drops exceptions (a finaliser)."""

    def __init__(self, show: Watcher) -> None:
        self._show, self._begin, self._stop = show, monotonic(), False
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: object) -> None:
        self._stop = True
        raise KeyboardInterrupt

    def __call__(self, stage: Stage) -> None:
        """Show a stage (KeyboardInterrupt after Ctrl-C)."""
        if self._stop:
            raise KeyboardInterrupt
        belongs_to(stage.run)
        self._show(stage)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return monotonic() - self._begin


# -- inside ------------------------------------------------------------------------------------------------------------


def _go_on(run_dir: str | Path, output: Path | None, machine: Path | None, given: Mapping[str, object]) -> str:
    """The command that goes on with a run in the same way: a run directory does not keep how."""
    from wsigen.run.typed_settings import ResumeSettings

    words = ["wsigen", "resume", str(run_dir)]
    for flag, path in (("--output", output), ("--machine", machine)):
        words += [] if path is None else [flag, str(path)]
    kept = {"device", "keep_run"}
    for name in [name for name in ResumeSettings.__annotations__ if name in given and name not in kept]:
        flag, value = name.replace("_", "-"), given[name]
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return shlex.join(words)


@contextmanager
def _watched(run_dir: str | Path, go_on: str, log: str | None) -> Iterator[Watch]:
    """Show a run; if it is interrupted, say how to go on with it."""
    try:
        with progress(log) as show:
            yield Watch(show)
    except KeyboardInterrupt:
        if _begun(run_dir):
            tell(
                f"\nStopped; nothing is lost, and '{go_on}' goes on with it",
                message=f"stopped; nothing is lost; go on with: {go_on}",
            )
        raise


def _begun(run_dir: str | Path) -> bool:
    from wsigen.storage.folder import RUN_SPEC
    from wsigen.storage.opening import open_folder

    try:
        return open_folder(run_dir).has(RUN_SPEC)
    except OSError:  # an object store that is away: the run may well be there
        return True


def _print(result: Result, seconds: float) -> None:
    """What was made, how long it took, what comes next."""
    from wsigen.run.display import duration

    rows = {
        "layout": result.layout and one_line(result.layout),  # from a run directory, which may be a stranger's
        "slide": result.slide,
        "annotations": result.annotations,
        "picture": result.thumbnail,
        "with classes": result.overlay,
        "manifest": result.manifest,
        "QuPath script": result.script,
        "level 0": f"sha256 {result.level0_sha256}",
        "time": duration(seconds),
        "next": f"'{shlex.join(['wsigen', 'view', str(result.slide)])}' shows it in the browser",
        "or": f"open {result.slide.name} in QuPath and run {result.script.name} there (Automate > Script editor)",
    }
    for label, value in rows.items():
        if value is not None:
            print(f"{label + ':':15}{value}")
