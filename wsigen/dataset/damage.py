"""Images that open and cannot be read everywhere: what a failed read means.

Indexing reads a coarse view of a slide; a damaged tile of its full resolution is met by the training.
"""

from __future__ import annotations

import sys
import threading

from wsigen.base.errors import DatasetError, ReferenceImageError

MOST_FAILED, LEAST_FAILED = 0.25, 20
"""Share of the reads that may fail, of which at least so many have to: beyond it, it is not a damaged tile."""

REDRAWN = 2**16
"""Words of random generators from here on: apart from those of a step's other draws (`denoiser_model.NOISE`)."""


class Damage:
    """Counts the reads of a stream and decides what a failed one means; several threads may tell it.

    Parameters
    ----------
    skip:
        Whether another place is read instead (``--skip-bad``).
    expected:
        Reads there will be at least: where they come image by image, one bad image must not look like all of them.
    """

    def __init__(self, skip: bool = False, expected: int = 0) -> None:
        self.skip, self.reads, self.expected = skip, 0, expected
        self.failed: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self) -> None:
        """Count a read that went well."""
        with self._lock:
            self.reads += 1

    def meet(self, name: str, error: ReferenceImageError) -> None:
        """Count a read that failed, and name the image the first time.

        Raises
        ------
        DatasetError
            If images must be whole, or too many reads fail.
        """
        reason = str(error).split(";")[0]
        if not self.skip:
            raise DatasetError(f"{name}: opens and cannot be read everywhere: {reason}; mend it, or go on with --skip-bad")
        with self._lock:
            self.failed[name] = self.failed.get(name, 0) + 1
            first, total = self.failed[name] == 1, sum(self.failed.values())
            self.reads += 1
            reads = max(self.reads, self.expected)
        if total >= LEAST_FAILED and total > MOST_FAILED * reads:
            worst = max(self.failed, key=lambda other: self.failed[other])
            raise DatasetError(
                f"{total} of {reads} reads failed, {self.failed[worst]} of them of {worst}: more than damaged places; "
                f"mend or remove the images (the last: {reason})"
            )
        if first:
            print(f"note: {name}: {reason}; other places are read instead", file=sys.stderr, flush=True)
