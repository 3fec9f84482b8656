"""A call on a worker, and how it may end there: errors that name their machine, lost workers told from errors of the task."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from wsigen.base.errors import UnfitWorkerError, WsigenError

T = TypeVar("T")


class WorkerLostError(Exception):
    """A worker died or was cut off while it held a task; the task can be given to another."""


class SchedulerLostError(WorkerLostError):
    """The scheduler left with the task; whether any worker ever began it nobody knows."""


def call_named(function: Callable[..., T], *args: Any) -> T:
    """Call a function on a worker; an error names the machine, and a worker that cannot take part its address."""
    try:
        return function(*args)
    except Exception as error:
        error.add_note(f"on {socket.gethostname()}")
        if isinstance(error, UnfitWorkerError):
            from distributed import get_worker

            error.worker = get_worker().address
        raise


def translated(error: Exception) -> Exception:
    """Tell a lost worker from an error of the task itself."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    if isinstance(error, WsigenError):
        return error
    if isinstance(error, CancelledError):  # we cancel nothing that is waited for: the scheduler went away, or began anew
        return SchedulerLostError(str(error))
    if isinstance(error, KilledWorker | CommClosedError):
        return WorkerLostError(str(error))
    return error
