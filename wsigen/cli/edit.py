"""``wsigen edit``: places of a slide made anew."""

from __future__ import annotations

import shlex
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from wsigen.cli.log import progress, tell
from wsigen.cli.options import SettingsCommand
from wsigen.cli.slides import Log, Machine, Watch


class EditCommand(SettingsCommand):
    """With the settings of a run that an edit takes."""

    @cached_property
    def settings(self) -> list[Any]:
        """The options of the settings."""
        from wsigen.run.typed_settings import EditSettings

        return [option for option in super().settings if option.name in EditSettings.__annotations__]


def edit(
    ctx: typer.Context,
    slide: Annotated[Path | None, typer.Argument(metavar="SLIDE", help="a tiled TIFF; it stays as it is")] = None,
    regions: Annotated[Path | None, typer.Option("--regions", help="GeoJSON: polygons with classes, made anew")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT", help="the new slide")] = None,
    undo: Annotated[Path | None, typer.Option("--undo", metavar="OUT", help="give OUT its parent's bytes again")] = None,
    strength: Annotated[float, typer.Option("--strength", help="1 replaces what is there, less alters it")] = 1.0,
    margin_um: Annotated[float, typer.Option("--margin-um", help="how far around the regions the slide changes, um")] = 100.0,
    seed: Annotated[int, typer.Option("--seed", help="equal seeds give equal pixels")] = 0,
    model: Annotated[str, typer.Option("--model", help="name, bundle folder, or hub id owner/name")] = "default",
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="GeoJSON of the slide's classes; else SLIDE.geojson, if it is there")
    ] = None,
    slide_mpp: Annotated[float | None, typer.Option("--slide-mpp", help="um/px of the slide, if it does not say it")] = None,
    resample: Annotated[bool, typer.Option("--resample", help="resample windows of a slide of other um/px")] = False,
    keep_undo: Annotated[bool, typer.Option("--keep-undo/--no-keep-undo", help="keep what is replaced in OUT.undo")] = True,
    machine: Machine = None,
    log: Log = None,
) -> None:
    """Make places of a slide anew; everything else in its file stays byte for byte."""
    from wsigen.base.errors import ConfigError
    from wsigen.editing.edit import edit, undo_edit
    from wsigen.run.display import duration

    if undo is not None:
        if slide is not None or regions is not None or output is not None:
            raise ConfigError("'--undo OUT' stands alone: it needs no slide, regions or output")
        undone = undo_edit(undo)
        print(f"{'slide:':15}{undone.slide}, as its parent was")
        for note in undone.notes:
            print(f"{'note:':15}{note}")
        return
    if slide is None or regions is None or output is None:
        raise ConfigError("give SLIDE, --regions EDIT.geojson and --output OUT, or --undo OUT alone")
    try:
        with progress(log) as show:
            watch = Watch(show)
            made = edit(
                slide, output, regions=regions, strength=strength, margin_um=margin_um, seed=seed, model=model,
                annotations=annotations, slide_mpp=slide_mpp, resample=resample, undo=keep_undo, machine=machine, watch=watch,
                **ctx.obj,
            )  # fmt: skip
    except KeyboardInterrupt:
        tell("\nStopped; nothing is lost, and the same command goes on with it", message="stopped; the same command goes on")
        raise
    count, of = made.tiles[0]
    rows = {
        "slide": made.slide,
        "annotations": made.annotations,
        "picture": made.thumbnail,
        "with classes": made.overlay,
        "manifest": made.manifest,
        "QuPath script": made.script,
        "made anew": f"{count} of {of} tiles at full resolution; all others are the parent's, byte for byte",
        "level 0": f"sha256 {made.level0_sha256}",
        "time": duration(watch.seconds),
        "next": f"'{shlex.join(['wsigen', 'view', str(made.slide)])}' shows it in the browser",
        "undo": made.undo and f"'{shlex.join(['wsigen', 'edit', '--undo', str(made.slide)])}' gives the parent's bytes back",
    }
    for label, value in rows.items():
        if value is not None:
            print(f"{label + ':':15}{value}")
    for note in made.notes:
        tell(f"note: {note}", message=note)
