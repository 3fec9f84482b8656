"""Keys that nobody needs any more: deleted at once from a disk, many with one request from an object store."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from wsigen.run.engine.patience import patiently
from wsigen.run.engine.stage import Notes
from wsigen.run.engine.wavefront import HalfStep
from wsigen.run.store import PassState


class Deletions:
    """Half-steps of a pass that are due to be deleted.

    They are no more than a folder deletes at a time. None of them is ever written again: what a damage lets be made again lies
    above all that is due (``Wavefront.roll_back``). So a request may be sent twice, and what a driver leaves that is killed, or
    a store without saying so, is found by the sweep at the beginning and the end of a pass; histories among it, which nobody
    reads without their state, stay until the run is cleared.

    Parameters
    ----------
    state:
        The pass.
    notes:
        Where a person is told that the store does not answer.
    """

    def __init__(self, state: PassState, notes: Notes) -> None:
        self._state, self._notes = state, notes
        self._due: list[HalfStep] = []

    def add(self, half_steps: Iterable[HalfStep]) -> None:
        """Delete half-steps, now or with the next ones."""
        self._due.extend(half_steps)
        if len(self._due) >= self._state.delete_at_once:
            self.flush()

    def flush(self) -> None:
        """Delete all that is due."""
        patiently(partial(self._state.delete_all_of, self._due), self._notes)
        self._due = []
