"""Tables as people save them: rows of a CSV by column name, whatever separates the columns.

Spreadsheets write semicolons and decimal commas where the language has them, QuPath tabs, Windows its own encoding.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from pathlib import Path

MOST_BYTES = 512 * 2**20
"""Of a table."""

SEPARATORS = ("\t", ";", ",", "|")
"""In this order where a header has equally many: a comma may stand in names and numbers."""

_SAID = re.compile(r"sep=(.)\s*$", re.IGNORECASE)
"""The line before the header by which Excel is told the separator."""


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the first line and the others, each as cells without the white space around them; empty lines are left out.

    Accents have one form (NFC), whoever wrote them.

    Raises
    ------
    OSError, ValueError, csv.Error
        If it cannot be read.
    """
    lines = unicodedata.normalize("NFC", _text(path)).lstrip().splitlines(keepends=True)
    said = _SAID.match(lines[0]) if lines else None
    lines = lines[1:] if said else lines
    header = next((line for line in lines if line.strip()), "")
    separator = said[1] if said else max(SEPARATORS, key=lambda one: _fit(header, one))
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    rows = [row for row in rows if any(row)]
    return (rows[0], rows[1:]) if rows else ([], [])


def _fit(header: str, separator: str) -> tuple[bool, int]:
    """How well a separator fits a header: it cuts no quoted name, and gives many columns."""
    cells = next(csv.reader([header], delimiter=separator), [])
    return not any('"' in cell for cell in cells), len(cells)


def number(text: str) -> float:
    """Return a number written with a decimal point or comma.

    Raises
    ------
    ValueError
        If it is none, or may be read in two ways, such as "1.234,5".
    """
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES >> 20} MiB, too large for a table")
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")
