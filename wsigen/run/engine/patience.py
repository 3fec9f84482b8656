"""A store that does not answer for a moment: which errors pass by themselves, and how long they are waited for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from time import sleep

from wsigen.run.engine.stage import Notes

FIRST_WAIT_S = 0.5
"""Seconds until what failed is tried for the second time; every wait is as long as all before it together."""

PATIENCE_S = 120.0
"""Seconds of waiting in all: a file server or an object store that is started again is back by then."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that all tasks meet alike: the disk or the user's share of it is full."""

LASTING = (*FULL, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSYS)
"""Errors of a place that waiting does not mend; refused access is another."""


def passes_by_itself(error: Exception) -> bool:
    """Whether an error is of a kind that a store has for a moment: a network that is away, a server that starts again."""
    return isinstance(error, OSError) and not isinstance(error, PermissionError) and error.errno not in LASTING


def next_wait(waited_s: float) -> float:
    """Seconds to wait before the next try, after ``waited_s`` in all; 0 if patience is at its end."""
    return max(0.0, min(max(FIRST_WAIT_S, waited_s), PATIENCE_S - waited_s))


def patiently(act: Callable[[], None], notes: Notes) -> None:
    """Do something with the store again and again until it answers, or patience is at its end (then the error is raised)."""
    waited = 0.0
    while True:
        try:
            return act()
        except OSError as error:
            wait = next_wait(waited) if passes_by_itself(error) else 0.0
            if not wait:
                raise
            notes.add("store", f"the store does not answer ({error}); tried again in {wait:.1f} s")
            sleep(wait)
            waited += wait
