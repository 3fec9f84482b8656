"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wsigen.base.version import __version__
from wsigen.cli.evaluate import evaluate
from wsigen.cli.evaluate_downstream import downstream
from wsigen.cli.train import train


class _Commands(TyperGroup):
    """Knows commands of two words, such as ``evaluate downstream`` beside ``evaluate REAL SYNTHETIC``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take two words for a command where there is one of that name."""
        both = " ".join(args[:2])
        return super().resolve_command(ctx, [both, *args[2:]] if both in self.commands else args)


app = typer.Typer(
    name="wsigen",
    cls=_Commands,
    help="Synthetic whole slides for digital pathology.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[Path | None, typer.Option("--config", help="YAML file with any of the settings below")]
Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="pixels of the slide, e.g. 4096x4096")]
LayoutFile = Annotated[
    str | None, typer.Option("--layout", metavar="FILE|sample", help="QuPath GeoJSON, a label image, or 'sample': draw one")
]
Subtype = Annotated[str | None, typer.Option("--subtype", help="of a sampled layout ('wsigen models' lists them)")]
Subtypes = Annotated[Path | None, typer.Option("--subtypes", help="YAML file with subtypes of your own")]
MaskModel = Annotated[
    Path | None, typer.Option("--mask-model", metavar="DIR", help="draws the sampled layout; what 'wsigen train mask' wrote")
]
LayoutMpp = Annotated[float | None, typer.Option("--layout-mpp", help="um/px of the image the layout was drawn on")]
LayoutClasses = Annotated[
    Path | None, typer.Option("--layout-classes", help="table 'value: class' of a label image (YAML, JSON, CSV)")
]
ClassName = Annotated[str | None, typer.Option("--class", help="one class for the whole slide")]
Background = Annotated[str | None, typer.Option("--background", help="class outside every polygon (default: glass)")]
Reference = Annotated[Path | None, typer.Option("--reference", help="image or slide whose structure is followed")]
Mode = Annotated[str | None, typer.Option("--mode", help="pathup | random-patch | shifted (default: shifted)")]
ModelName = Annotated[str | None, typer.Option("--model", help="'default', a bundle folder or a hub id")]
Overlap = Annotated[int | None, typer.Option("--overlap", help="overlap of windows, latent px")]
Taper = Annotated[str | None, typer.Option("--taper", help="window weights: pathup | linear | hann | gaussian | flat")]
WeightedLast = Annotated[int | None, typer.Option("--weighted-last", help="random-patch: weighted last steps")]
Steps = Annotated[int | None, typer.Option("--steps", help="denoising steps (default: the model's)")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="w of (1+w) eps(class) - w eps(null)")]
Sampler = Annotated[str | None, typer.Option("--sampler", help="ddim | dpm++ (second order, for few steps)")]
Eta = Annotated[float | None, typer.Option("--eta", help="0: deterministic DDIM .. 1: fresh noise every step")]
Strength = Annotated[float | None, typer.Option("--strength", help="re-noising of a reference or coarser level, 0-1")]
Levels = Annotated[int | None, typer.Option("--levels", help="magnification levels of the cascade")]
Seed = Annotated[int | None, typer.Option("--seed", help="0 .. 2^64-1; equal seeds give equal slides")]
Chunk = Annotated[int | None, typer.Option("--chunk", help="chunk side, latent px")]
Batch = Annotated[int | None, typer.Option("--batch", help="crops per model call")]
Mpp = Annotated[float | None, typer.Option("--mpp", help="um/px, for models that do not say their own")]
Compression = Annotated[str | None, typer.Option("--compression", help="jpeg | deflate")]
Quality = Annotated[int | None, typer.Option("--quality", help="JPEG quality, 1-100")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps ...")]
Precision = Annotated[str | None, typer.Option("--precision", help="fp32 | bf16")]
RunDir = Annotated[
    str | None, typer.Option("--run-dir", metavar="DIR|URL", help="state of the run, a folder or s3://... (default: OUT.run)")
]
KeepRun = Annotated[bool | None, typer.Option("--keep-run/--no-keep-run", help="keep the run directory after success")]
WorkerCount = Annotated[int | None, typer.Option("--workers", help="local workers (default: one per core)")]
Processes = Annotated[bool | None, typer.Option("--processes", help="workers as processes instead of threads")]
Threads = Annotated[int | None, typer.Option("--threads", help="model threads of each worker")]
TasksAtOnce = Annotated[
    int | None, typer.Option("--tasks-at-once", help="tasks of each worker, one at the model, others reading and writing")
]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="address of a running dask scheduler")]
MixedWorkers = Annotated[
    str | None, typer.Option("--mixed-workers", metavar="refuse|warn", help="workers with other versions or another device")
]
MemoryGb = Annotated[float | None, typer.Option("--memory-gb", help="memory all local workers may use")]
Window = Annotated[int | None, typer.Option("--window", help="tasks in flight per worker")]
Log = Annotated[str | None, typer.Option("--log", metavar="text|json", help="progress as lines, or as lines of JSON")]
Overwrite = Annotated[bool | None, typer.Option("--overwrite", help="replace an existing slide")]


def _settings(values: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """Split a command's parameters into settings and the configuration file."""
    settings = {k: v for k, v in values.items() if k not in {"output", "config", "log"} and v is not None}
    return settings, values.get("config")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Synthetic whole slides for digital pathology."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def generate(
    output: Annotated[Path, typer.Argument(metavar="OUT.ome.tiff", help="the slide; its sidecars go beside it")],
    config: Config = None,
    size: Size = None,
    layout: LayoutFile = None,
    layout_mpp: LayoutMpp = None,
    layout_classes: LayoutClasses = None,
    subtype: Subtype = None,
    subtypes: Subtypes = None,
    mask_model: MaskModel = None,
    class_name: ClassName = None,
    background: Background = None,
    reference: Reference = None,
    mode: Mode = None,
    model: ModelName = None,
    overlap: Overlap = None,
    taper: Taper = None,
    weighted_last: WeightedLast = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    eta: Eta = None,
    strength: Strength = None,
    levels: Levels = None,
    seed: Seed = None,
    chunk: Chunk = None,
    batch: Batch = None,
    mpp: Mpp = None,
    compression: Compression = None,
    quality: Quality = None,
    device: Device = None,
    precision: Precision = None,
    run_dir: RunDir = None,
    keep_run: KeepRun = None,
    workers: WorkerCount = None,
    processes: Processes = None,
    threads: Threads = None,
    tasks_at_once: TasksAtOnce = None,
    scheduler: Scheduler = None,
    mixed_workers: MixedWorkers = None,
    memory_gb: MemoryGb = None,
    window: Window = None,
    overwrite: Overwrite = None,
    log: Log = None,
) -> None:
    """Generate a synthetic slide from a layout, a class or a reference."""
    settings, file = _settings(dict(locals()))
    from wsigen.cli.commands import run_generate

    run_generate(output, settings, file, log)


@app.command()
def estimate(
    config: Config = None,
    size: Size = None,
    layout: LayoutFile = None,
    layout_mpp: LayoutMpp = None,
    layout_classes: LayoutClasses = None,
    subtype: Subtype = None,
    subtypes: Subtypes = None,
    mask_model: MaskModel = None,
    class_name: ClassName = None,
    background: Background = None,
    reference: Reference = None,
    mode: Mode = None,
    model: ModelName = None,
    overlap: Overlap = None,
    taper: Taper = None,
    weighted_last: WeightedLast = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    eta: Eta = None,
    strength: Strength = None,
    levels: Levels = None,
    seed: Seed = None,
    chunk: Chunk = None,
    batch: Batch = None,
    mpp: Mpp = None,
    compression: Compression = None,
    device: Device = None,
    precision: Precision = None,
    workers: WorkerCount = None,
    processes: Processes = None,
    threads: Threads = None,
    tasks_at_once: TasksAtOnce = None,
) -> None:
    """Say what a slide would cost: model calls, time, disk, memory."""
    settings, file = _settings(dict(locals()))
    from wsigen.cli.commands import run_estimate

    run_estimate(settings, file)


@app.command()
def resume(
    run_dir: Annotated[str, typer.Argument(metavar="RUN_DIR", help="the directory or URL of an interrupted run")],
    keep_run: KeepRun = None,
    workers: WorkerCount = None,
    processes: Processes = None,
    threads: Threads = None,
    tasks_at_once: TasksAtOnce = None,
    scheduler: Scheduler = None,
    window: Window = None,
    log: Log = None,
) -> None:
    """Go on with a run after any interruption."""
    values = dict(locals())
    values.pop("run_dir")
    settings, _ = _settings(values)
    from wsigen.cli.commands import run_resume

    run_resume(run_dir, settings, log)


@app.command()
def inspect(
    run_dir: Annotated[str, typer.Argument(metavar="RUN_DIR", help="the directory or URL of a run, finished or not")],
    picture: Annotated[Path | None, typer.Option("--picture", help="timestep map (default: RUN_DIR/timesteps.png)")] = None,
) -> None:
    """Show the progress of a run, and its timestep map as a picture."""
    from wsigen.cli.commands import run_inspect

    run_inspect(run_dir, picture)


@app.command()
def models() -> None:
    """List the bundles known here, their classes and um/px."""
    from wsigen.cli.commands import run_models

    run_models()


@app.command("worker-check")
def worker_check(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="of the dask scheduler, e.g. tcp://host:8786")],
    run_dir: Annotated[str | None, typer.Option("--run-dir", help="a folder or URL all workers must reach")] = None,
    model: ModelName = None,
) -> None:
    """Ask every worker of a cluster for versions, device, model and run directory; exit code 1 if they do not fit."""
    from wsigen.cli.commands import run_worker_check

    run_worker_check(address, model or "default", run_dir)


app.command()(evaluate)
app.command("evaluate downstream")(downstream)
app.add_typer(train, name="train")
