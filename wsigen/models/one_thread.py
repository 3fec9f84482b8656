"""Networks that run outside of tasks compute with one thread: bits must not depend on how many a machine has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread of the CPU."""
    import torch

    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
