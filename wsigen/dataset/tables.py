"""CSV tables: rows by column name, and which image a row speaks of."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from wsigen.base.csv_file import read_table
from wsigen.base.errors import DatasetError, refusing, suggest


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV, each with at least ``columns``; commas, semicolons and tabs are told apart by the header.

    Raises
    ------
    DatasetError
        If it is missing, has no rows, or lacks a column.
    """
    with refusing(DatasetError, f"{path}: the CSV cannot be read", "check its path and save it as UTF-8"):
        header, rows = read_table(path)
    said = {_alike(column): column for column in columns}
    header = [said.get(_alike(name), name) for name in header]
    for column in columns:
        if header.count(column) > 1:
            raise DatasetError(f"{path}: {header.count(column)} columns are called {column!r}; rename or remove all but one")
        if column not in header:
            raise DatasetError(
                f"{path}: no column {column!r}{suggest(column, header)}; it has {', '.join(header) or 'none'}; "
                "name the right one in the dataset's file"
            )
    if not rows:
        raise DatasetError(f"{path}: the CSV has a header and no rows; fill it or leave it out")
    blank = [""] * len(header)
    return [dict(zip(header, [*row, *blank], strict=False)) for row in rows]


def _alike(column: str) -> str:
    """What names of columns that look alike have in common: there are two characters µ."""
    return unicodedata.normalize("NFKC", column)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, for a message."""
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


_UNITS = {
    "um": re.compile(r"(?<![a-z])([uµμ]m|micron|microm(et(er|re)))s?(?![a-z])"),
    "px": re.compile(r"(?<![a-z])(px|pxl|pixel)s?(?![a-z])"),
}


def named_unit(column: str) -> str | None:
    """Return the unit that a column's name says: "um" of ``Centroid X µm``, "px" of ``x_px``; None if it says none."""
    return next((unit for unit, pattern in _UNITS.items() if pattern.search(column.casefold())), None)


def folder_of(table: str) -> str:
    """The folder of a table that a setting names, from the dataset's root."""
    return PurePosixPath(table.replace("\\", "/")).parent.as_posix()


def keys(name: str) -> list[str]:
    """What people may call an image: its path or the end of it, with or without its suffix; the longest first."""
    return [short for end in _ends(name) for short in _with_and_without_suffix(end)]


class ImageNames:
    """Finds the image that a table speaks of.

    One name must be the end of the other: a table may leave out folders that the dataset names, and name more, as where the
    images lay on another machine.

    Parameters
    ----------
    names : iterable of str
        Of the images.
    folder : str
        Where the table lies, from the dataset's root: a path in it may count from there.
    """

    def __init__(self, names: Iterable[str], folder: str = "") -> None:
        self._folder = folder
        self._whole: dict[str, str | None] = {}
        self._ends: dict[str, str | None] = {}
        names = list(names)
        for name in names:
            for called, shorts in ((self._whole, _with_and_without_suffix(name)), (self._ends, keys(name))):
                for short in dict.fromkeys(map(_composed, shorts)):
                    called[short] = name if called.get(short, name) == name else None
        self._whole |= {_composed(name): name for name in names}  # in full it is one image, whatever others are called

    def find(self, written: str) -> str | None:
        """Return the image's name; None if there is none, or several may be meant."""
        text = posixpath.normpath(_composed(written).replace("\\", "/"))
        for path in (posixpath.normpath(posixpath.join(_composed(self._folder), text)), text):
            if path in self._whole:
                return self._whole[path]
        if text in self._ends:
            return self._ends[text]
        return next((self._whole[end] for end in _ends(text) if end in self._whole), None)


def existing(path: Path) -> Path | None:
    """Return a file, also where its name has its accents in another form than the one asked for (macOS writes them apart)."""
    forms = (path.name, *(unicodedata.normalize(form, path.name) for form in ("NFC", "NFD")))
    return next((there for form in forms if (there := path.with_name(form)).is_file()), None)


def _composed(name: str) -> str:
    """A name with its accents in one form."""
    return unicodedata.normalize("NFC", name)


def _ends(path: str) -> list[str]:
    """``a/b/c`` -> ``a/b/c``, ``b/c``, ``c``."""
    parts = PurePosixPath(path).parts
    return [path, *("/".join(parts[k:]) for k in range(1, len(parts)))]


def _with_and_without_suffix(name: str) -> list[str]:
    """A name, without its suffix, and that of an OME-TIFF without both."""
    stem = name.removesuffix(PurePosixPath(name).suffix)
    return [name, stem, *([stem[:-4]] if stem.casefold().endswith(".ome") else [])]


def column_of_images(
    path: Path, image: str, value: str, names: Sequence[str], needed: Sequence[str] | None = None, folder: str = ""
) -> dict[str, str]:
    """Read a CSV with one row an image: image's name -> value; images of other datasets are passed over.

    ``folder`` is that of the table, from the dataset's root.

    Raises
    ------
    DatasetError
        If an image that is ``needed`` (of all ``names`` by default) is missing in the table, or one has two values.
    """
    known = ImageNames(names, folder)
    values: dict[str, str] = {}
    strangers: list[str] = []
    for row in read_rows(path, (image, value)):
        name = known.find(row[image])
        if name is None:
            strangers.append(row[image])
            continue
        if values.setdefault(name, row[value]) != row[value]:
            raise DatasetError(f"{path}: {name} is both {values[name]!r} and {row[value]!r}; keep one row")
    needed = names if needed is None else needed
    missing = [n for n in needed if not values.get(n)]
    if missing:
        others = f"; of its rows {few(strangers)} are no images of the dataset, or may be several" if strangers else ""
        raise DatasetError(
            f"{path}: no {value!r} for {len(missing)} of {len(needed)} images ({few(missing, 10)}){others}; add or correct rows"
        )
    return values
