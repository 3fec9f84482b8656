"""Whose turn it is to call a model that several threads share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """Lets so many threads at once do what only so many can do well: the others read and write meanwhile.

    A task keeps its turn for all model calls it has to make one after the other. If it gave the turn away after each, two
    tasks would come to their last calls together, and then read and write together while nobody computes.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken = 0

    @contextmanager
    def take(self, most: int | None) -> Iterator[None]:
        """Wait until fewer than ``most`` threads have a turn (None: do not wait), and have one within."""
        with self._changed:
            self._changed.wait_for(lambda: most is None or self._taken < most)
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()
