"""The processes that ``accelerate launch`` started, this one among them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from wsigen.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other; NCCL's ten minutes are less than a slow disk can hold one of them up."""


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
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and state.num_processes == 1:
        raise TrainingError(
            f"{started} processes were started, and this one cannot join the others (no GPU found?); start them with "
            "'accelerate launch', without a GPU with 'accelerate launch --cpu'"
        )
    return state


def is_main() -> bool:
    """Whether this process writes the files."""
    return bool(processes().is_main_process)
