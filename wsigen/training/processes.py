"""The processes that ``accelerate launch`` started, this one among them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other; NCCL's ten minutes are less than a slow disk can hold one of them up."""


def processes() -> PartialState:
    """Return what this process knows of the others; the first call of a program joins them."""
    from accelerate import PartialState

    return PartialState(timeout=PATIENCE)


def is_main() -> bool:
    """Whether this process writes the files."""
    return bool(processes().is_main_process)
