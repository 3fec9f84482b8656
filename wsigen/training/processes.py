"""The processes that ``accelerate launch`` started, this one among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from wsigen.base.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(minutes=30)
"""How long processes wait for each other: the main one writes a checkpoint alone, and NCCL's ten minutes are less than a slow
disk can hold it up. One that is dead is waited for as long, unless what started them (``accelerate launch``,
``srun --kill-on-bad-exit=1``) ends them all."""


TELL_S = 2.0
"""Seconds after which the main process tells the others again that it is at work (`main_first`)."""

Made = TypeVar("Made")


def processes() -> PartialState:
    """Return what this process knows of the others; the first call of a program joins them.

    Raises
    ------
    TrainingError
        If there are others and they cannot be joined: each would write the same files.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # `Accelerator` looks at the flag, too, but after somebody joined without it there is no going back
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    started = _started()
    if started > 1 and state.num_processes == 1:
        raise TrainingError(
            f"{started} processes were started, and this one cannot join the others (no GPU found?); start them with "
            "'accelerate launch', without a GPU with 'accelerate launch --cpu'"
        )
    return state


def _started() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def main_first(what: str, make: Callable[[], Made]) -> Made:
    """Make something in the main process first, which keeps it on disk, then in the others, which find it there.

    They wait however long it takes, as long as the main one is alive. Alone, nothing heavy is imported.

    Parameters
    ----------
    what : str
        For a message: what is made.
    make : callable
        Called once in each process.

    Raises
    ------
    TrainingError
        In the others, if it went wrong in the main process; what ``make`` raises.
    """
    if _started() == 1:
        return make()
    if not processes().is_main_process:
        while not (told := _told_by_main("")):
            pass
        if told == "failed":
            raise TrainingError(f"the first process of this training could not make {what}; see what it says")
        return make()
    made: Future[Made] = Future()
    Thread(target=_settle, args=(made, make), daemon=True).start()  # a daemon: Ctrl-C ends it, too
    while not wait([made], TELL_S).done:
        _told_by_main("")
    _told_by_main("failed" if made.exception() else "done")
    return made.result()


def _settle(made: Future[Made], make: Callable[[], Made]) -> None:
    try:
        made.set_result(make())
    except BaseException as error:
        made.set_exception(error)


def _told_by_main(said: str) -> str:
    """What the main process says; all of them call this at the same time."""
    from accelerate.utils import broadcast_object_list

    with together():
        told: list[str] = broadcast_object_list([said])
    return told[0]


@contextmanager
def together() -> Iterator[None]:
    """Around what processes do together: that another one is not there any more becomes a line.

    Of NCCL only what it raises: its watch ends a process whose patience is over by itself, with words of its own.

    Raises
    ------
    TrainingError
        If another process ended, or was not heard of for ``PATIENCE``.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_the_network(error):
            raise
        minutes = PATIENCE.total_seconds() / 60
        raise TrainingError(
            f"another process of this training ended, or was not heard of for {minutes:.0f} min "
            f"({' '.join(str(error).split())[:200]}); see what the one that ended first says, mend that, and start all of them "
            "again: with --resume where there is a checkpoint"
        ) from None


def _is_of_the_network(error: RuntimeError) -> bool:
    from torch import distributed

    known = (distributed.DistError,) if distributed.is_available() else ()
    return isinstance(error, known) or "gloo" in str(error)


def meet() -> None:
    """Wait for the others (TrainingError if one is not there any more)."""
    with together():
        processes().wait_for_everyone()


def is_main() -> bool:
    """Whether this process writes the files."""
    return bool(processes().is_main_process)
