"""Progress for people: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from wsigen.engine.run import Stage, Watcher

PLAIN_EVERY_S = 10.0
"""Seconds between plain lines of one stage."""


@contextmanager
def progress() -> Iterator[Watcher]:
    """Give a watcher that fits where the output goes."""
    if sys.stderr.isatty():
        with _live() as watch:
            yield watch
    else:
        yield _Plain()


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
    """A line per stage at its end and every few seconds in between."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, stage: Stage) -> None:
        now = monotonic()
        if stage.finished or stage.note or stage.workers == 0 or now - self._last >= PLAIN_EVERY_S:
            self._last = now
            print(describe(stage), file=sys.stderr, flush=True)


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
