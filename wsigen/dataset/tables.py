"""CSV tables: rows by column name, and which image a row speaks of."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from wsigen.base.errors import DatasetError, suggest


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV, each with at least ``columns``.

    Raises
    ------
    DatasetError
        If it is missing, has no rows, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [{k: (v or "").strip() for k, v in row.items() if isinstance(v, str | None) and k} for row in reader]
            header = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: the CSV cannot be read ({error}); check its path and save it as UTF-8") from None
    for column in columns:
        if column not in header:
            raise DatasetError(
                f"{path}: no column {column!r}{suggest(column, header)}; it has {', '.join(header) or 'none'}; "
                "name the right one in the dataset's file"
            )
    if not rows:
        raise DatasetError(f"{path}: the CSV has a header and no rows; fill it or leave it out")
    return rows


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, for a message."""
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def keys(name: str) -> tuple[str, str, str]:
    """What a table may call an image: its name, its file name, its stem."""
    pure = PurePosixPath(name)
    return (name, pure.name, pure.stem)


def lookup(names: Iterable[str]) -> dict[str, str | None]:
    """Map everything a table may say to the image's name; None where two images share it."""
    called: dict[str, str | None] = {}
    for name in names:
        for key in keys(name):
            called[key] = name if called.get(key, name) == name else None
    return called


def column_of_images(
    path: Path, image: str, value: str, names: Sequence[str], needed: Sequence[str] | None = None
) -> dict[str, str]:
    """Read a CSV with one row an image: image's name -> value; images of other datasets are passed over.

    Raises
    ------
    DatasetError
        If an image that is ``needed`` (of all ``names`` by default) is missing in the table, or one has two values.
    """
    known = lookup(names)
    values: dict[str, str] = {}
    for row in read_rows(path, (image, value)):
        name = known.get(row[image])
        if name is None:
            continue
        if values.setdefault(name, row[value]) != row[value]:
            raise DatasetError(f"{path}: {name} is both {values[name]!r} and {row[value]!r}; keep one row")
    needed = names if needed is None else needed
    missing = [n for n in needed if not values.get(n)]
    if missing:
        raise DatasetError(
            f"{path}: no {value!r} for {len(missing)} of {len(needed)} images, e.g. {missing[0]}; add their rows"
        )
    return values
