"""Whose turn it is to call a model that several threads share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """Lets so many threads at once do what only so many can do well: the others read and write meanwhile.

    A denoise task keeps its turn for all model calls it has to make one after the other. If it gave the turn away after each,
    two tasks would come to their last calls together, and then read and write together while nobody computes. Decoding takes
    a turn for each window, which it reads, and fades into glass, between two of them.

    Runs of one process that share a model are limited each for itself: those with another limit do not count.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken: Counter[int] = Counter()

    @contextmanager
    def take(self, most: int | None) -> Iterator[None]:
        """Wait until fewer than ``most`` threads have a turn (None: do not wait), and have one within."""
        if most is None:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._taken[most] < most)
            self._taken[most] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[most] -= 1
                self._changed.notify_all()
