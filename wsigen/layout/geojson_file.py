"""Read the JSON of a GeoJSON file, packed or not, and say clearly why it cannot be read."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from wsigen.base.errors import LayoutError

MAX_BYTES = 512 * 2**20
"""The most text that is read, unpacked: a small packed file may hold terabytes."""


def load_json(path: Path) -> Any:
    """Return the parsed JSON of a plain or gzip-packed file.

    Raises
    ------
    LayoutError
        If the file is missing, unreadable, too large, not text or not JSON.
    """
    text = _read_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise LayoutError(f"{path}: the JSON is nested too deeply; export the annotations anew from QuPath") from None
    except json.JSONDecodeError as e:
        raise LayoutError(
            f"{path}: not JSON ({e.msg}, line {e.lineno} column {e.colno}); "
            "export the annotations from QuPath as GeoJSON, or give a label image"
        ) from None
    except ValueError as e:
        raise LayoutError(f"{path}: not JSON ({str(e).split(';')[0]}); export the annotations anew") from None


def read_start(path: Path, count: int = 256) -> bytes:
    """Return the first bytes of a file, unpacked if it is packed by gzip.

    Raises
    ------
    LayoutError
        If the file is missing or cannot be read.
    """
    return _read(path, count)


def _read_text(path: Path) -> str:
    data = _read(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise LayoutError(
            f"{path}: more than {MAX_BYTES >> 20} MiB of text, too large for a layout; "
            "export only the annotations, not the detections"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LayoutError(f"{path}: not GeoJSON (no UTF-8 text); export the annotations from QuPath as GeoJSON") from None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as f:
            packed = f.read(2) == b"\x1f\x8b"
            f.seek(0)
            if not packed:
                return f.read(limit)
            with gzip.open(f) as g:
                return g.read(limit)
    except FileNotFoundError:
        raise LayoutError(f"{path}: no such layout file; check the path given to --layout") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise LayoutError(f"{path}: the gzip file is damaged ({e}); export or copy it again") from None
    except OSError as e:
        raise LayoutError(f"{path}: cannot be read ({e.strerror or e}); give a GeoJSON file or a label image") from None
