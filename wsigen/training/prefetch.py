"""Batches made ahead of time by threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Ahead(Generic[Item]):
    def __init__(self, make: Callable[[int], Item], pool: ThreadPoolExecutor, first: int, end: int, depth: int) -> None:
        self._make, self._pool, self._next, self._end, self._depth = make, pool, first, end, depth
        self._waiting: deque[Future[Item]] = deque()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        while self._next < self._end and len(self._waiting) < self._depth:
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1
        if not self._waiting:
            raise StopIteration
        item = self._waiting.popleft().result()
        if self._next < self._end:  # the thread goes on while the caller computes
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1
        return item

    def cancel(self) -> None:
        for future in self._waiting:
            future.cancel()


@contextmanager
def prefetched(make: Callable[[int], Item], first: int, end: int, threads: int = 1, depth: int = 2) -> Iterator[Iterator[Item]]:
    """Yield ``make(first), ..., make(end - 1)``, made by threads while the caller works.

    **Memory bound**: at most ``depth`` items wait at a time. An error in ``make`` is raised where its item is taken.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        ahead = _Ahead(make, pool, first, end, max(depth, threads))
        try:
            yield ahead
        finally:
            ahead.cancel()
