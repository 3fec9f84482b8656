"""Progress for people: a live display on a terminal, plain lines elsewhere; or for programs: lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import monotonic

from wsigen.base.errors import ConfigError, WsigenError
from wsigen.cli.lines import now
from wsigen.run.engine.stage import Stage, Watcher

FORMATS = ("text", "json")
"""What ``--log`` may be."""

PLAIN_EVERY_S = 10.0
"""Seconds between plain lines of one stage."""


def check_format(log: str | None) -> None:
    """Refuse a form of log that is none (ConfigError)."""
    if log is not None and log not in FORMATS:
        raise ConfigError(f"--log: {log!r} is no form of log; choose {' or '.join(FORMATS)}")


@contextmanager
def progress(log: str | None = None) -> Iterator[Watcher]:
    """Give a watcher that fits where the output goes; with ``log`` "json", one that writes an object per line."""
    if log == "json":
        with _structured() as watch:
            yield watch
    elif log is None and sys.stderr.isatty():
        with _live() as watch:
            yield watch
    else:
        yield _Plain(lambda stage: f"{stage.run}  {describe(stage)}")


def describe(stage: Stage) -> str:
    """One line about a stage: tasks, model calls per second, time left, workers."""
    if stage.note:
        return f"{stage.name}: {stage.note}"
    share = f"{100 * stage.done / max(1, stage.total):3.0f} %"
    text = f"{stage.name}: {share}  {stage.done}/{stage.total} tasks"
    if stage.calls and stage.seconds:
        text += f"  {stage.calls / stage.seconds:.1f} crops/s"
    made = stage.done - stage.before
    if made > 0 and stage.done < stage.total and stage.seconds:
        text += f"  about {_clock(stage.seconds / made * (stage.total - stage.done))} left"
    if stage.workers:
        text += f"  {stage.workers} worker{'s' if stage.workers > 1 else ''}"
    elif not stage.finished:
        text += "  waiting for workers"
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Plain:
    """A line per stage at its end and every few seconds in between, and one for everything a person should know."""

    def __init__(self, line: Callable[[Stage], str]) -> None:
        self._line, self._last = line, 0.0

    def __call__(self, stage: Stage) -> None:
        now = monotonic()
        if stage.finished or stage.note or stage.workers == 0 or now - self._last >= PLAIN_EVERY_S:
            self._last = now
            print(self._line(stage), file=sys.stderr, flush=True)


@contextmanager
def _structured() -> Iterator[Watcher]:
    """Lines of JSON: the fields of a ``Stage`` and the time; the error that ends a run as the last of them."""
    run = ""

    def line(stage: Stage) -> str:
        nonlocal run
        run = stage.run
        return json.dumps({"time": now(), **asdict(stage)})

    try:
        yield _Plain(line)
    except (WsigenError, OSError) as error:
        said = {"time": now(), "run": run, "error": type(error).__name__, "message": str(error)}
        print(json.dumps(said), file=sys.stderr, flush=True)
        raise SystemExit(2) from None


@contextmanager
def _live() -> Iterator[Watcher]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def watch(stage: Stage) -> None:
            if stage.note:
                bars.console.print(describe(stage), highlight=False, markup=False)
                return
            if stage.name not in tasks:
                tasks[stage.name] = bars.add_task(stage.name, total=stage.total)
            done = stage.total if stage.finished else stage.done
            bars.update(tasks[stage.name], completed=done, description=describe(stage))  # type: ignore[arg-type]  # a TaskID

        yield watch
