"""`Problems`: everything that is wrong with a file, told in one message."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import LayoutError

MOST_TOLD = 6
"""Kinds of problems that a message tells."""


class Problems:
    """Collects what is wrong with a file; of each kind the first is told in full, and how many more there are.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, cause: str, remedy: str, where: str = "", kind: str = "") -> None:
        """Add one.

        Parameters
        ----------
        cause, remedy : str
            What is wrong, and what to do.
        where : str
            In which feature.
        kind : str
            Problems of one kind are told once; by default the cause.
        """
        kind = kind or cause
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._first.setdefault(kind, (f"{where}: {cause}" if where else cause, remedy))

    def __bool__(self) -> bool:
        return bool(self._first)

    def demand_none(self) -> None:
        """Raise what was collected.

        Raises
        ------
        LayoutError
            One line that names the file; its ``causes`` are the problems without what to do.
        """
        if not self._first:
            return
        causes, lines = [], []
        for kind, (cause, remedy) in list(self._first.items())[:MOST_TOLD]:
            more = self._counts[kind] - 1
            cause += f" (and {more} more like it)" if more else ""
            causes.append(cause)
            lines.append(f"{cause}; {remedy}")
        if len(lines) == 1:
            raise LayoutError(f"{self._path}: {lines[0]}", causes)
        others = len(self._first) - len(lines)
        text = " ".join(f"({n}) {line}." for n, line in enumerate(lines, 1))
        raise LayoutError(f"{self._path}: {len(self._first)} problems: {text}" + f" And {others} more." * bool(others), causes)
