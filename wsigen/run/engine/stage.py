"""How a run goes on, for who watches it: a stage's progress, and notes that a person should read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

NOTE_EVERY_S = 10.0
"""Seconds between two notes of one kind: a thousand workers may be lost at once, and that is one line."""


@dataclass(slots=True)
class Stage:
    """Progress of one stage: what a display shows.

    Attributes
    ----------
    name : str
        E.g. ``"denoise, level 1 of 2 (0.7 um/px)"``.
    total, done, before : int
        Tasks; ``before`` were done by an earlier driver of the run.
    calls : int
        Model calls made by this driver.
    workers : int
        Workers; 0 while a scheduler has none yet.
    seconds : float
        Since the stage began.
    note : str
        Something that a person should know; then the numbers say nothing.
    run : str
        Id of the run.
    """

    name: str
    total: int
    done: int = 0
    calls: int = 0
    workers: int = 0
    seconds: float = 0.0
    finished: bool = False
    before: int = 0
    note: str = ""
    run: str = ""


class Watcher(Protocol):
    """Anything that wants to know how a run goes on."""

    def __call__(self, stage: Stage) -> None:
        """Look at a stage; called when it begins, after every task, every few seconds without one, and at its end."""
        ...


def _nobody(text: str) -> None:
    """Nobody listens yet."""


@dataclass(slots=True)
class Notes:
    """Lines for a person, at most one of a kind every ``NOTE_EVERY_S``; those held back are counted, never dropped unsaid.

    Attributes
    ----------
    tell : callable
        Where a line goes.
    """

    tell: Callable[[str], None] = _nobody
    _said: dict[str, float] = field(default_factory=dict)
    _held: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        """Say a line now, or later if one of its kind was said just now."""
        count = self._held.get(kind, (0, ""))[0]
        self._held[kind] = (count + 1, text)
        self.flush()

    def flush(self, at_once: bool = False) -> None:
        """Say what was held back long enough, or all of it."""
        now = monotonic()
        for kind in [k for k in self._held if at_once or now - self._said.get(k, -NOTE_EVERY_S) >= NOTE_EVERY_S]:
            count, text = self._held.pop(kind)
            self._said[kind] = now
            self.tell(f"{text} (and {count - 1} more like this)" if count > 1 else text)
