"""A GeoJSON file -> parsed JSON: plain or packed, in the encodings that people's exports have, within limits.

QuPath writes UTF-8, and a zip on demand; its scripts of old wrote the encoding of the machine, Windows' PowerShell UTF-16. The
reading is not as strict as `base.json_file`: QuPath's measurements may be NaN, and some versions write an entry twice.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from wsigen.base.errors import LayoutError, refusing
from wsigen.layout.long_json import parse_long
from wsigen.storage.archive import demand_few_entries

MAX_BYTES = 512 * 2**20
"""The most text that is read, unpacked: a small packed file may hold terabytes."""

BYTES_A_LIST = 5
"""The least text of a list on average: the shortest position, ``[0,0],``, has 6 bytes. Lists of nothing would be walked through
for minutes, and only then turn out to be no geometry."""

MOST_PACKED = 200
"""How many times its packed size a text may have, beyond the first MiB; coordinates pack to a third or a tenth."""

MOST_ENTRIES = 1000
"""Files in a zip; QuPath puts one into it."""

EXPORT = "export the annotations from QuPath with File > Export objects as GeoJSON"

JSON_SUFFIXES = (".geojson", ".json")


def load_json(path: Path) -> tuple[Any, list[str]]:
    """Return the parsed JSON of a plain, gzip-packed or zipped file, and what a person should know of it.

    A list of more than a megabyte is a `LongList`. In all others rings of polygons are arrays already, as numbers of Python
    would take eight times the memory; what QuPath measured is left out.

    Raises
    ------
    LayoutError
        If the file is missing, unreadable, too large, not text or not JSON.
    """
    text, note = _text(path)
    with refusing(LayoutError, f"{path}: not GeoJSON, for it is not JSON", EXPORT):
        return parse_long(text, _packed), [note] if note else []


def load_whole(path: Path) -> Any:
    """Return the parsed JSON of the same files with everything in it, as plain values: to be written again (LayoutError)."""
    text, _ = _text(path)
    with refusing(LayoutError, f"{path}: not GeoJSON, for it is not JSON", EXPORT):
        return json.loads(text)


def _text(path: Path) -> tuple[bytes, str]:
    """The text of a file in UTF-8, and a note where its encoding is a guess."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise LayoutError(_too_large(path))
    most = min(MAX_BYTES, 2**20 + MOST_PACKED * path.stat().st_size) if path.is_file() else MAX_BYTES
    data, _ = _start(path, most + 1)
    if len(data) > most:
        raise LayoutError(_too_large(path) if most == MAX_BYTES else _too_packed(path))
    with refusing(LayoutError, f"{path}: not GeoJSON, for it is not JSON", EXPORT):
        if (data.count(b"[") - 1000) * BYTES_A_LIST > len(data):
            raise ValueError(f"{data.count(b'[')} lists in {len(data)} bytes; they hold no coordinates")
        return _decoded(data)


def _too_large(path: Path) -> str:
    most = f"more than {MAX_BYTES >> 20} MiB of text, too large for a layout"
    return f"{path}: {most}; export only the annotations, not the detections"


def _too_packed(path: Path) -> str:
    return f"{path}: unpacks to more than {MOST_PACKED} times its size, too large for coordinates; unpack it and give that file"


def looks_like_json(path: Path) -> bool:
    """Whether a file is JSON by its name or by how its text begins; a label image is not packed."""
    start, packed = _start(path, 256)
    named = any(suffix.casefold() in JSON_SUFFIXES for suffix in path.suffixes[-2:])
    text = start[: len(start) // 4 * 4].decode(json.detect_encoding(start), "replace")
    return packed or named or text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[")


def _start(path: Path, count: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, of a gzip or zip those of the GeoJSON in it; and whether it is one of these.

    Raises
    ------
    LayoutError
        If the file is missing or cannot be read.
    """
    if not path.exists():
        raise LayoutError(f"{path}: no such layout file; check its path")
    with refusing(LayoutError, f"{path}: cannot be read", "give a GeoJSON file or a label image"), path.open("rb") as file:
        begins = file.read(4)
        file.seek(0)
        if begins[:2] == b"\x1f\x8b":
            with refusing(LayoutError, f"{path}: the gzip file is damaged", "export or copy it again"):
                return gzip.open(file).read(count), True
        if begins == b"PK\x03\x04":
            with _in_zip(path, file) as inner:
                return inner.read(count), True
        return file.read(count), False


@contextmanager
def _in_zip(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The one GeoJSON of a zip, read where it lies; names in a zip are never used as paths."""
    with refusing(LayoutError, f"{path}: the zip file is damaged or locked", "export or copy it again"):
        demand_few_entries(path, MOST_ENTRIES)
        with zipfile.ZipFile(file) as packed:
            found = [entry for entry in packed.infolist() if _is_geojson(entry)]
            if len(found) != 1:
                names = ", ".join(entry.filename for entry in found[:5]) or "none"
                raise LayoutError(f"{path}: holds {len(found)} GeoJSON files ({names}), not one; unpack it and give that one")
            if found[0].file_size > MAX_BYTES:  # no more than this is ever unpacked, so it need not be true
                raise LayoutError(_too_large(path))
            with packed.open(found[0]) as inner:
                yield inner


def _is_geojson(entry: zipfile.ZipInfo) -> bool:
    name = entry.filename.casefold()
    return name.endswith(JSON_SUFFIXES) and not entry.is_dir() and not name.startswith("__macosx/")


def _decoded(data: bytes) -> tuple[bytes, str]:
    """Text as UTF-8, and a note where its encoding is a guess: JSON is UTF-8, or UTF-16 or 32, which its first bytes tell."""
    encoding = json.detect_encoding(data)
    if encoding not in ("utf-8", "utf-8-sig"):
        return _recoded(data, encoding), ""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        for _ in codecs.iterdecode(_blocks(data), "utf-8"):
            pass
    except UnicodeDecodeError:
        note = "the file is not UTF-8 and is read as Windows-1252; check names with accents or µ"
        return _recoded(data, "cp1252"), note
    return data, ""


def _recoded(data: bytes, encoding: str) -> bytes:
    """In blocks, as text may take four times the memory of its bytes."""
    return b"".join(part.encode() for part in codecs.iterdecode(_blocks(data), encoding))


def _blocks(data: bytes, size: int = 2**20) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _packed(item: dict[str, Any]) -> dict[str, Any]:
    """Turn the rings of a polygon into arrays as soon as it is parsed; what is no ring stays as it is, to be refused later."""
    kind, coordinates = item.get("type"), item.get("coordinates")
    try:
        if kind == "Polygon" and isinstance(coordinates, list):
            item["coordinates"] = [_ring(ring) for ring in coordinates]
        elif kind == "MultiPolygon" and isinstance(coordinates, list):
            item["coordinates"] = [[_ring(ring) for ring in rings] for rings in coordinates]
    except (TypeError, ValueError, OverflowError):
        item["coordinates"] = coordinates
    item.pop("measurements", None)
    return item


def _ring(points: Any) -> Any:
    if not isinstance(points, list) or not points:
        return points
    array = np.array(points)
    return array.astype(np.float64) if array.ndim == 2 and array.dtype.kind in "if" and array.shape[1] in (2, 3) else points
