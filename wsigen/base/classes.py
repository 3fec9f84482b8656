"""Tissue classes: the names, colours and indices that layouts, models and annotations share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from wsigen.base.errors import ConfigError, suggest

UNKNOWN = 255
"""Value of a class-map pixel whose class is not known (the null condition of sparse annotations)."""


@dataclass(frozen=True, slots=True)
class TissueClass:
    """One class: its name as QuPath shows it, its RGB colour (0-255) and whether it is bare glass."""

    name: str
    color: tuple[int, int, int]
    background: bool = False


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The classes of a model; a class map (uint8) holds positions in this table, or ``UNKNOWN``.

    ``remedy`` ends what is said of an unknown name: what to do where the names are not the model's own.
    """

    classes: tuple[TissueClass, ...]
    remedy: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        folded = [c.name.casefold() for c in self.classes]
        twice = sorted({n for n in folded if folded.count(n) > 1})
        if twice:
            raise ConfigError(f"class table: the name {twice[0]!r} appears twice; every class needs its own name")
        if not 1 <= len(self.classes) < UNKNOWN - 1:
            raise ConfigError(f"class table: {len(self.classes)} classes; between 1 and {UNKNOWN - 2} are possible")

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[TissueClass]:
        return iter(self.classes)

    def __getitem__(self, index: int) -> TissueClass:
        return self.classes[index]

    @property
    def names(self) -> list[str]:
        """The names in index order."""
        return [c.name for c in self.classes]

    @property
    def background(self) -> int | None:
        """Index of the first background class, or None if the model has none."""
        return next((i for i, c in enumerate(self.classes) if c.background), None)

    def index(self, name: str) -> int:
        """Index of a class by name, ignoring case.

        Raises
        ------
        ConfigError
            If there is no such class; the message lists the known ones and the nearest.
        """
        for i, c in enumerate(self.classes):
            if c.name.casefold() == name.strip().casefold():
                return i
        raise ConfigError(f"unknown class {name!r}{suggest(name, self.names)}; {self.known}")

    @property
    def known(self) -> str:
        """The names for people who asked for another one."""
        return f"known: {', '.join(self.names)}{self.remedy}"
