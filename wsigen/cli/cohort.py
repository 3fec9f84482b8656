"""``wsigen cohort make``, ``preview``, ``verify`` and ``regenerate``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from wsigen.base.errors import ConfigError
from wsigen.cli.log import progress, tell
from wsigen.cli.options import CohortCommand, examples
from wsigen.cli.slides import Log, Machine, Watch

Plan = Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="the plan of the cohort (docs/cohorts.md)", show_default=False)]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="folder of a cohort", show_default=False)]
Runs = Annotated[int, typer.Option("--runs", min=1, max=4, help="slides on their way at a time; bounds the disk they take")]

cohort = typer.Typer(no_args_is_help=True)


@cohort.callback(epilog=examples("wsigen cohort make plan.yaml --out cohort"))
def root() -> None:
    """Many labelled slides from one plan, ready to share: make, check and make them again."""


@cohort.command(
    no_args_is_help=True,
    cls=CohortCommand,
    epilog=examples(
        "wsigen cohort make plan.yaml --out cohort --workers 4", "wsigen cohort make plan.yaml --out cohort --estimate"
    ),
)
def make(
    ctx: typer.Context,
    plan: Plan,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the cohort; the same command again goes on")],
    estimate: Annotated[bool, typer.Option("--estimate", help="say what it would cost, and make nothing")] = False,
    runs: Runs = 2,
    publish: Annotated[
        bool, typer.Option("--publish", help="refuse what cannot be published: no licence, privacy not measured")
    ] = False,
    machine: Machine = None,
    log: Log = None,
) -> None:
    """Make a cohort of labelled slides, or go on with one; exit code 1 if a slide failed."""
    if estimate:
        from wsigen.cohort.estimate import estimate_cohort

        print(estimate_cohort(plan, runs=runs, machine=machine, **ctx.obj))
        return
    from wsigen.cohort.make import make_cohort

    with _going_on(out, log) as watch:
        made = make_cohort(plan, out, runs=runs, publish=publish, machine=machine, watch=watch, **ctx.obj)
    print(f"{'slides:':15}{len(made.made)} of {len(made.slides)}")
    print(f"{'folder:':15}{out}")
    print(f"{'card:':15}{out / 'README.md'}")
    for name, reason in made.failed.items():
        tell(f"failed: {name}: {reason}", error="failed", slide=name, message=reason)
    if made.failed:
        print(f"{'next:':15}remove the cause, then the same command again")
        raise SystemExit(1)
    print(f"{'next:':15}wsigen cohort verify {shlex.quote(str(out))}, or run open-in-qupath.groovy in QuPath's script editor")


@cohort.command(no_args_is_help=True, epilog=examples("wsigen cohort preview plan.yaml --out layouts.png"))
def preview(
    plan: Plan,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the picture, PNG or JPEG")],
    slides: Annotated[int, typer.Option("--slides", min=1, help="how many to show at most")] = 24,
) -> None:
    """Show the layouts, sizes and subtypes of a cohort's first slides, before a model is called."""
    from wsigen.cohort.preview import preview_cohort

    shown = preview_cohort(plan, out, slides=slides)
    print(f"{'slides:':15}{len(shown)}, from {shown[0].id} to {shown[-1].id}")
    print(f"{'picture:':15}{out}")
    print(f"{'next:':15}wsigen cohort make {shlex.quote(str(plan))} --out DIR --estimate")


@cohort.command(no_args_is_help=True, epilog=examples("wsigen cohort verify cohort"))
def verify(folder: Folder) -> None:
    """Check every file against its checksum and every slide against the plan; exit code 1 if something is missing or wrong."""
    from wsigen.cohort.verify import verify_cohort

    found = verify_cohort(folder)
    print(f"{found.files} files are as they were written, {found.slides} slides as the plan says")
    for problem in found.problems:
        print(f"problem: {problem}", file=sys.stderr)
    for name in found.missing:
        print(f"missing: {name}", file=sys.stderr)
    if not found.good:
        raise SystemExit(1)


@cohort.command(
    no_args_is_help=True,
    cls=CohortCommand,
    epilog=examples(
        "wsigen cohort regenerate cohort --slides 2",
        "wsigen cohort regenerate recipe.yaml --out again --place my-model=models/mine",
    ),
)
def regenerate(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="DIR|recipe.yaml", help="a cohort, or its recipe", show_default=False)],
    slides: Annotated[
        str | None, typer.Option("--slides", metavar="N|ID,...", help="how many, or which; by default all")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="keep what is made in this folder")] = None,
    place: Annotated[
        list[str] | None,
        typer.Option("--place", metavar="NAME=PATH", help="where a model or reference lies that the recipe knows by name"),
    ] = None,
    runs: Runs = 2,
    machine: Machine = None,
    log: Log = None,
) -> None:
    """Make slides again from the recipe alone and compare their pixels; exit code 1 if one comes out otherwise."""
    from wsigen.cohort.regenerate import regenerate_cohort

    wanted = None if slides is None else int(slides) if slides.isdigit() else slides.split(",")
    places = dict(_named(text) for text in place or ())
    with _going_on(out, log) as watch:
        found = regenerate_cohort(
            source, slides=wanted, out=out, places=places, runs=runs, machine=machine, watch=watch, **ctx.obj
        )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for name in found.other:
        print(f"other: {name} has not the pixels of the cohort", file=sys.stderr)
    for name, reason in found.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    compared = len(found.same) + len(found.other)
    print(
        f"{len(found.same)} of {compared} slides came out again with the same pixels" if compared else "nothing to compare with"
    )
    if out is not None:
        print(f"{'folder:':15}{out}")
    if not found.good:
        raise SystemExit(1)


# -- inside ------------------------------------------------------------------------------------------------------------


@contextmanager
def _going_on(out: Path | None, log: str | None) -> Iterator[Watch]:
    """Show a cohort; if it is interrupted, say that the same command goes on."""
    try:
        with progress(log) as show:
            yield Watch(show)
    except KeyboardInterrupt:
        if out is not None and out.is_dir():
            tell("\nStopped; nothing is lost, and the same command goes on", message="stopped; the same command goes on")
        raise


def _named(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not (name and path):
        raise ConfigError(f"--place: {text!r} is not NAME=PATH")
    return name, path
