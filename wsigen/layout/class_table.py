"""`read_class_table`: what the values of a label image mean, from a YAML, JSON or CSV file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsigen.base.errors import LayoutError

HELP = 'write lines like \'1: Tumor\' (YAML), {"1": "Tumor"} (JSON) or 1,Tumor (CSV)'


def read_class_table(path: str | Path) -> dict[int, str]:
    """Read a mapping from label values to class names.

    A YAML or JSON file holds ``value: name``, ``name: value`` or a list of names (values from 0); a CSV file
    the columns value and name, with or without a header. An empty name means the background.

    Raises
    ------
    LayoutError
        If the file is missing, cannot be parsed, or a value is no whole number or appears twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LayoutError(f"{path}: no such class table; check the path") from None
    except (OSError, UnicodeDecodeError):
        raise LayoutError(f"{path}: the class table is not a readable text file; {HELP}") from None
    pairs = _csv_pairs(text, path) if path.suffix.casefold() in (".csv", ".tsv") else _pairs(_parse(text, path), path)
    return _mapping(pairs, path)


def _parse(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix.casefold() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        raise LayoutError(f"{path}: the class table cannot be parsed ({str(e).splitlines()[0]}); {HELP}") from None


def _pairs(data: Any, path: Path) -> list[tuple[Any, Any]]:
    if isinstance(data, list):
        return list(enumerate(data))
    if isinstance(data, dict):
        by_name = all(isinstance(v, int) and not isinstance(v, bool) for v in data.values())
        return [(v, k) if by_name else (k, v) for k, v in data.items()]
    raise LayoutError(f"{path}: the class table is neither a mapping nor a list; {HELP}")


def _csv_pairs(text: str, path: Path) -> list[tuple[Any, Any]]:
    delimiter = "\t" if path.suffix.casefold() == ".tsv" else ","
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(c.strip() for c in row)]
    if rows and not _is_int(rows[0][0]):
        rows = rows[1:]
    for row in rows:
        if len(row) < 2:
            raise LayoutError(f"{path}: the line {','.join(row)!r} of the class table has no name; {HELP}")
    return [(row[0], row[1]) for row in rows]


def _is_int(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, float)


def _mapping(pairs: Iterable[tuple[Any, Any]], path: Path) -> dict[int, str]:
    mapping: dict[int, str] = {}
    for value, name in pairs:
        if not _is_int(value):
            raise LayoutError(f"{path}: the label value {value!r} is not a whole number; {HELP}")
        if int(value) in mapping:
            raise LayoutError(f"{path}: the label value {int(value)} appears twice; keep one line for each value")
        mapping[int(value)] = "" if name is None else str(name).strip()
    if not mapping:
        raise LayoutError(f"{path}: the class table is empty; {HELP}")
    return mapping
