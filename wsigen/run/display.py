"""How a run goes on, for people: bars in a terminal or a notebook, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING

from wsigen.base.errors import printable
from wsigen.run.engine.stage import Stage, Watcher

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 10.0
"""Seconds between two lines of one stage."""

LEFT_AFTER_S = 10.0
"""Seconds of a stage before the time left is said: the first tasks load the model."""

LEFT_AFTER_SHARE = 0.03
"""Share of what is to do that must be done before."""

WIDE = 96
"""Columns of a terminal in which the speed has its place beside a bar."""


@contextmanager
def showing(progress: bool, watch: Watcher | None) -> Iterator[Watcher | None]:
    """What watches a run: the display if it is wanted, a caller's own watcher, both or nobody."""
    if not progress:
        yield watch
        return
    with display() as shown:

        def look(stage: Stage) -> None:
            shown(stage)
            if watch is not None:
                watch(stage)

        yield look


@contextmanager
def display() -> Iterator[Watcher]:
    """A watcher that writes to stderr what fits there."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if console.is_terminal or (console.is_jupyter and find_spec("ipywidgets")):
        with _bars(console) as watch:
            yield watch
    else:
        yield Lines(lambda stage: f"{stage.run}  {describe(stage)}")


class Lines:
    """A line when a stage ends, every few seconds before, and for whatever a person should know.

    Parameters
    ----------
    line : callable
        Makes the line of a stage.
    """

    def __init__(self, line: Callable[[Stage], str]) -> None:
        self._line, self._last = line, 0.0

    def __call__(self, stage: Stage) -> None:
        """Write a line if it is time."""
        now = monotonic()
        if stage.finished or stage.note or stage.workers == 0 or now - self._last >= LINE_EVERY_S:
            self._last = now
            print(self._line(stage), file=sys.stderr, flush=True)


def describe(stage: Stage) -> str:
    """One line about a stage: share, tasks, crops per second, time left, workers."""
    if stage.note:
        return printable(f"{stage.name}: {stage.note}")
    share = f"{100 * stage.done / max(1, stage.total):.0f} %"
    return "  ".join([f"{stage.name}: {share}", f"{stage.done}/{stage.total} tasks", *_figures(stage)])


def duration(seconds: float) -> str:
    """A time in its two largest units: ``"42 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``, ``"3 d 4 h"``."""
    rest = max(0, round(seconds))
    said: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or said:
            said.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, said[:2])) or "0 s"


def time_left(stage: Stage) -> float | None:
    """Seconds until a stage ends, no more exact than they are known; None while too little is done to tell."""
    made, rest = stage.done - stage.before, stage.total - stage.done
    if not rest or made < max(2.0, LEFT_AFTER_SHARE * (made + rest)) or stage.seconds < LEFT_AFTER_S:
        return None
    left = stage.seconds / made * rest
    unit = 10 if left < 100 else 60 if left < 2 * 3600 else 600
    return max(1, round(left / unit)) * unit


def _figures(stage: Stage, speed: bool = True) -> list[str]:
    """Speed, time and workers, as far as they are known."""
    said: list[str] = []
    if speed and stage.calls and stage.seconds:
        said.append(f"{stage.calls / stage.seconds:.1f} crops/s")
    if stage.finished:
        return [*said, f"took {duration(stage.seconds)}"]
    left = time_left(stage)
    if left is not None:
        said.append(f"{duration(left)} left")
    many = "s" if stage.workers != 1 else ""
    return [*said, f"{stage.workers} worker{many}" if stage.workers else "waiting for workers"]


@contextmanager
def _bars(console: Console) -> Iterator[Watcher]:
    """A bar for every stage; notes scroll by above them."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn

    columns = (
        SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), BarColumn(bar_width=10), TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", style="dim"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        rows: dict[str, TaskID] = {}

        def watch(stage: Stage) -> None:
            if stage.note:
                bars.console.print(describe(stage), soft_wrap=True)
                return
            if stage.name not in rows:
                rows[stage.name] = bars.add_task(stage.name, total=stage.total, figures="")
            done = stage.total if stage.finished else stage.done
            figures = _figures(stage, speed=console.width >= WIDE)
            bars.update(rows[stage.name], completed=done, figures="  ".join(figures))

        yield watch
