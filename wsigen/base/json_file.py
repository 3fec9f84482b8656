"""JSON that comes from elsewhere: one strict reading, in bounded depth, by a parser in Rust.

jiter (the parser of pydantic) takes half the time of ``json.loads``, refuses names that are given twice, NaN, text after the
value, half surrogates, and more than 200 levels of nesting, and says line and column of each fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

from wsigen.base.errors import WsigenError, refusing

MOST_BYTES = 8 * 2**20
"""Of a JSON file, if the reader does not say otherwise: configs take a few kilobytes. Values take up to 25 times the memory of
their text."""

_BOM = b"\xef\xbb\xbf"


def read_json(
    file: Path,
    fault: type[WsigenError],
    advice: str = "mend it",
    most_bytes: int = MOST_BYTES,
    allow_infinite: bool = False,
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    fault : type of WsigenError
        The error to raise.
    advice : str
        What to do about a file that cannot be read.
    most_bytes : int
        A larger file is refused before it is read.
    allow_infinite : bool
        Take numbers that are not finite, which JSON does not know and Python writes.

    Raises
    ------
    WsigenError
        One line, ``fault``; see `parse_json`.
    FileNotFoundError
        If there is none: only the caller knows what that means.
    """
    with refusing(fault, f"{file}: cannot be read as JSON", advice, (FileNotFoundError,)):
        if (size := file.stat().st_size) > most_bytes:
            raise ValueError(f"{size / 2**20:.0f} MiB; at most {most_bytes / 2**20:.0f} MiB are taken")
        return parse_json(file.read_bytes(), allow_infinite)


def parse_json(data: bytes, allow_infinite: bool = False) -> Any:
    """Return the value of a JSON text in UTF-8, with or without a byte order mark.

    Raises
    ------
    ValueError
        If it is none, nests more than 200 levels, names an entry twice, or holds a number that is not finite
        and may not.
    """
    import jiter

    value = jiter.from_json(data.removeprefix(_BOM), allow_inf_nan=allow_infinite, catch_duplicate_keys=True)
    if not (allow_infinite or _is_finite([value])):  # jiter takes 1e999 for infinity
        raise ValueError("a number is too large")
    return value


def _is_finite(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, float):
            if not isfinite(value):
                return False
        elif isinstance(value, dict | list) and not _is_finite(value.values() if isinstance(value, dict) else value):
            return False
    return True
