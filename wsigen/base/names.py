"""Paths and URLs that no system can open, told before one is tried."""

from __future__ import annotations

import os

_LONGEST_PATH, _LONGEST_NAME = 4095, 255
"""Bytes of Linux (PATH_MAX without its last byte, NAME_MAX); other systems take as much or less, and say so themselves."""


def unusable_path(path: str) -> str:
    """Why no file can have this path or URL, as the end of a sentence; empty if one can.

    How long a URL may be, its server says: signed ones are longer than any name of a file.
    """
    if "\0" in path:
        return "holds a NUL character, which no name may have"
    is_url = "://" in path
    try:
        encoded = path.encode() if is_url else os.fsencode(path)
    except UnicodeEncodeError:
        return f"holds a character that no {'URL' if is_url else 'name on this machine'} can have"
    if is_url:
        return ""
    if len(encoded) > _LONGEST_PATH:
        return f"is longer than any path ({len(encoded)} bytes; at most {_LONGEST_PATH})"
    longest = max(encoded.split(b"/"), key=len)
    if len(longest) > _LONGEST_NAME:
        shown = os.fsdecode(longest)[:20]
        return f"has a name that is longer than any ('{shown}...', {len(longest)} bytes; at most {_LONGEST_NAME})"
    return ""
