"""The interface of a run's folder: whole values under names, whatever keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer

RUN_SPEC = "run.json"
"""The specification of a run, the one name every run has; where it is gone, the run is over, and who writes late must fail."""


class Lock:
    """A folder held by one driver; by the operating system, if not said otherwise, and nobody can take it away.

    Attributes
    ----------
    lost : str
        Who took it away; empty while it is held.
    """

    lost = ""

    def confirm(self) -> None:
        """Make sure that it is held right now (RunError if it is not)."""


class Folder(Protocol):
    """Values under names like ``work-0123456789ab/spool/00000_00001.blk``.

    A value appears whole or not at all, under its name, for all processes alike; the last writer of a name wins. Errors of the
    place itself are ``OSError``.

    Attributes
    ----------
    delete_at_once : int
        Values that are to be collected before they are deleted; 1 where each costs the same alone.
    answers_late : bool
        Whether every request costs a round trip, so that several are better sent together.
    """

    delete_at_once: int = 1
    answers_late: bool = False

    @property
    def name(self) -> str:
        """Path or URL, by which another process opens the same folder."""
        ...

    def sub(self, name: str) -> Folder:
        """A folder in this one; who writes into it fails with FileNotFoundError once the run is over."""
        ...

    def read(self, key: str) -> bytes:
        """A value (FileNotFoundError if there is none)."""
        ...

    def write(self, key: str, data: Buffer, flush: bool = True) -> None:
        """Set a value; ``flush``: it must outlive a power cut from now on (else: it may be damaged by one, or gone)."""
        ...

    def has(self, key: str) -> bool:
        """Whether there is a value of this name."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """Names of all values in the folder, or in the one called ``prefix``; relative to this folder."""
        ...

    def top(self) -> list[str]:
        """Names of values and folders that lie right in this one, unfinished ones, too."""
        ...

    def delete(self, key: str) -> None:
        """Remove a value; not an error if it is gone."""
        ...

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove several values; not an error if any is gone. A store may leave some and not say so."""
        for key in keys:
            self.delete(key)

    def stamp(self, key: str) -> str:
        """A word that changes whenever the value is set (FileNotFoundError if there is none)."""
        ...

    def local(self, key: str) -> Path:
        """A file with the value, for readers that want one; it stays as long as this object."""
        ...

    def chunks(self) -> Any:
        """A zarr store in this folder."""
        ...

    def lock(self, key: str) -> AbstractContextManager[Lock]:
        """Hold the folder for one driver (RunError if another does)."""
        ...

    def make(self) -> None:
        """Make the folder, where folders are things of their own."""
        return

    def sweep(self) -> None:
        """Remove what writers that were killed left unfinished; nobody may be writing now, or it is made again."""
        return

    def discard(self, name: str) -> None:
        """Remove the value or the folder of this name, and what killed writers left of it; late writers do not make it anew."""
        ...

    def leave(self) -> None:
        """Remove the folder itself, if it is a thing of its own and nothing is in it."""
        return

    def links(self) -> list[str]:
        """Names of symbolic links and special files in it, which lead elsewhere; a run makes none."""
        return []

    def sizes(self) -> Iterable[tuple[str, int]]:
        """Names and bytes of all values, where it costs nothing to ask; nothing elsewhere."""
        return ()

    def size(self) -> int:
        """Bytes of all values."""
        ...
