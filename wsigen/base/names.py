"""Paths that no system can open, told before one is tried."""

from __future__ import annotations

import os

_LONGEST_PATH, _LONGEST_NAME = 4095, 255
"""Bytes of Linux (PATH_MAX without its last byte, NAME_MAX); other systems take as much or less, and say so themselves."""


def unusable_path(path: str) -> str:
    """Why no file can have this path, as the end of a sentence; empty if one can."""
    if "\0" in path:
        return "holds a NUL character, which no name may have"
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return "holds a character that no name on this machine can have"
    if len(encoded) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in encoded.split(b"/")):
        return f"is longer than any path ({_LONGEST_PATH} bytes, {_LONGEST_NAME} a name)"
    return ""
