"""Zips from elsewhere: how many files they list, before the list is read."""

from __future__ import annotations

from pathlib import Path

_END, _END64, _LISTED = b"PK\x05\x06", b"PK\x06\x07", 46
_MOST_NAME = 400
"""Bytes of a name and its extra fields, on average."""


def demand_few_entries(path: Path, most: int) -> None:
    """Refuse a zip that lists very many files (ValueError): its list takes gigabytes when it is read.

    Python reads as many bytes of the list as the last record says, whatever number of files it says.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2**16 - 42))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise ValueError("no zip")
    entries = int.from_bytes(tail[at + 10 : at + 12], "little")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if entries > most or listed > most * (_LISTED + _MOST_NAME) or tail[max(0, at - 20) :][:4] == _END64:
        raise ValueError(f"a zip of more than {most:,} files")
