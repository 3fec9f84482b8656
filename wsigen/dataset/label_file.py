"""Whether a file of labels is still the one that was opened: labels are read at every access, for hours of a training."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import DatasetError

Stamp = tuple[int, int]
"""Size (bytes) and time of change (ns) of a file."""


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file as it is now.

    Raises
    ------
    DatasetError
        If it is gone, or cannot be looked at.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: these labels cannot be read ({error.strerror}); put them back and start again") from None
    return stat.st_size, stat.st_mtime_ns


def demand_unchanged(path: Path, stamp: Stamp) -> None:
    """Refuse a file that is not the one whose stamp was taken (DatasetError)."""
    if stamp_of(path) != stamp:
        raise DatasetError(
            f"{path}: changed since it was opened, so that old and new labels would be mixed; leave it as it is and start again"
        )
