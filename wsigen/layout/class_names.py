"""Which class a written name stands for: names of people and programs on one side, a model's or dataset's on the other.

Annotations, label images and points all go through `ClassNames`, whatever command reads them, so that a name is renamed, left
out or refused by the same rules everywhere.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, suggest

T = TypeVar("T")

MOST_NAMED = 12
"""Names that a message lists."""


_PART = re.compile(r'\s*"[^"]*"\s*=[^,]*|[^,]*')
"""What lies between two commas; a name in quotes may hold some."""

_QUOTED = re.compile(r'\s*"([^"]*)"\s*=(.*)', re.DOTALL)


def parse_names(value: Any) -> Any:
    """Turn ``"Necrosis=Other,Region*="`` into ``{"Necrosis": "Other", "Region*": None}``; other values stay as they are.

    The last ``=`` of a part ends the name, which may hold others. In double quotes it may hold commas, too.

    Raises
    ------
    ValueError
        If a part has no ``=``, or a name is given twice.
    """
    if not isinstance(value, str):
        return value
    names: dict[str, str | None] = {}
    for part in _parts_of_option(value):
        quoted = _QUOTED.fullmatch(part)
        written, equals, name = (quoted[1], "=", quoted[2]) if quoted else part.rpartition("=")
        written, name = written.strip(), name.strip()
        if not equals:
            raise ValueError(f"{part.strip()!r} has no '='; write NAME=CLASS, or NAME= to leave NAME out, with commas between")
        if written in names:
            raise ValueError(f"{written!r} is given twice; leave one")
        names[written] = name or None
    return names


def as_option(written: str, name: str = "") -> str:
    """How the option, or a YAML file where it cannot, renames a name (leaves it out where ``name`` is empty), for messages."""
    plain = "," not in written and not written.startswith('"')
    if plain or '"' not in written:
        text = f"{written}={name}" if plain else f'"{written}"={name}'
        return f"--layout-names {text!r}"
    return f"'layout-names: {{{json.dumps(written, ensure_ascii=False)}: {name or 'null'}}}' in a --config file"


def _parts_of_option(text: str) -> Iterator[str]:
    """The parts between commas, those at the ends too."""
    at = 0
    while at <= len(text):
        part = _PART.match(text, at)
        assert part is not None
        yield part[0]
        at = part.end() + 1


Names = Annotated[dict[str, str | None], BeforeValidator(parse_names)]
"""A setting that renames: written name -> name of a class, or None: as if it were not there. "" stands for no name at all."""


class Unresolved(Enum):
    """Why a written name stands for no class."""

    DROPPED = "left out because the user says so"
    STARRED = "QuPath's mark for regions without a meaning of their own"
    UNNAMED = "no name at all"
    UNKNOWN = "neither renamed nor a class"


class ClassNames:
    """Finds the class of written names.

    A name is looked up as written, else by the first parts of a derived one ("Tumor: Positive" is Tumor), each time first
    among the renamed ones and then in the table; case does not matter. Names that end in ``*`` (*Region\\**, *Ignore\\**) are
    what QuPath leaves out of its own measurements, and so left out here unless they are renamed.

    Parameters
    ----------
    table : ClassTable
        The classes.
    names : mapping of str to (str or None), optional
        See `Names`.

    Raises
    ------
    ConfigError
        If a renamed one leads to no class.
    """

    def __init__(self, table: ClassTable, names: Mapping[str, str | None] | None = None) -> None:
        self.table = table
        self._known = {_folded(name): index for index, name in enumerate(table.names)}
        self._renamed = {
            _folded(written): Unresolved.DROPPED if name is None else table.index(name)
            for written, name in (names or {}).items()
        }
        self._written = {_folded(written): written for written in names or {}}
        self._found: dict[str | None, int | Unresolved] = {}

    def find(self, written: str | None) -> int | Unresolved:
        """Return the index of the class that a name stands for, or why there is none."""
        if written not in self._found:
            self._found[written] = _look_up(written, self._renamed, self._known)
        return self._found[written]

    @property
    def unused(self) -> list[str]:
        """The renamed names that were never asked for, as the user wrote them."""
        asked = {part for written in self._found for part in _parts(written)}
        return [written for key, written in self._written.items() if key not in asked]

    def unknown(self, counts: Mapping[str, int]) -> str:
        """Say in words which names stand for no class, how often each occurs, and which classes there are."""
        most = Counter(counts).most_common(MOST_NAMED)
        listed = ", ".join(f"{name!r}{suggest(name, self.table.names)} ({count} times)" for name, count in most)
        more = f" and {len(counts) - len(most)} more" if len(counts) > len(most) else ""
        return f"unknown class{'es' * (len(counts) > 1)} {listed}{more}; {self.table.known}"


class WrittenClasses:
    """Classes of files of which no table says what they are: renamed, left out, or as they are written.

    Names are looked up by the rules of `ClassNames`; one that is neither renamed nor left out is a class of its own.

    Parameters
    ----------
    names : mapping of str to (str or None), optional
        See `Names`.

    Attributes
    ----------
    names : dict
        The same, each class spelt in one way.
    """

    def __init__(self, names: Mapping[str, str | None] | None = None) -> None:
        given = names or {}
        self._classes = {_folded(name): name for name in reversed([*given.values()]) if name is not None}
        self.names = {written: None if name is None else self._classes[_folded(name)] for written, name in given.items()}
        self._renamed = {_folded(written): name for written, name in self.names.items()}
        self._asked: set[str] = set()

    def find(self, written: str) -> str | None:
        """Return the class that a name stands for, or None: it is left out."""
        self._asked.update(_parts(written))
        found = _look_up(written, self._renamed, self._classes)
        if found is Unresolved.UNKNOWN:
            return written.strip()
        return None if isinstance(found, Unresolved) else found

    def classes(self, written: Iterable[str]) -> list[str]:
        """Return the classes that names stand for, each once, case aside."""
        found = [name for name in map(self.find, written) if name is not None]
        return list({_folded(name): name for name in reversed(found)}.values())[::-1]

    @property
    def unused(self) -> list[str]:
        """The renamed names that were never asked for, as the user wrote them."""
        return [written for written in self.names if _folded(written) not in self._asked]


def check_names(table: ClassTable, names: Mapping[str, str | None] | None, setting: str) -> ClassNames:
    """Return `ClassNames` of a setting; its faults name the setting (ConfigError)."""
    try:
        return ClassNames(table, names)
    except ConfigError as error:
        raise ConfigError(f"setting {setting!r}: {error}") from None


def _look_up(written: str | None, renamed: Mapping[str, T], known: Mapping[str, T]) -> T | Unresolved:
    """Return what a name, or the longest part of it that is among the renamed or known ones (folded), stands for."""
    starred = str(written).strip().endswith("*")
    for part in _parts(written):
        if part in renamed:
            return renamed[part]
        if part in known:
            return known[part]
        if starred:  # "Tumor: Ignore*" is no tumour
            return Unresolved.STARRED
    return Unresolved.UNKNOWN if (written or "").strip() else Unresolved.UNNAMED


def _folded(name: str) -> str:
    """What names that look alike have in common: no case, and accents in one form (macOS writes them apart)."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def _parts(written: str | None) -> Iterator[str]:
    """A name, then what is left of it without its last parts: "a: b: c", "a: b", "a"."""
    rest = _folded(written or "")
    while True:
        yield rest
        rest, colon, _ = rest.rpartition(":")
        rest = rest.strip()
        if not colon:
            return
