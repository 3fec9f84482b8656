"""Changes of a TIFF in place: new tiles go to its end, and the entries that point to them are written over.

Everything that was in the file and is written over is handed on first, so that it can be brought back. What a file says of
where its tiles lie is not trusted: nothing is written over that is not a tile that was replaced, or an entry that points to it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, OutputError
from wsigen.slide.tiff_reader import DAMAGED

OFFSETS, COUNTS, DESCRIPTION = 324, 325, 270
"""Tags: TileOffsets, TileByteCounts, ImageDescription."""

CLASSIC_BYTES = 2**32 - 1
"""A classic TIFF has no place beyond."""

_FORMATS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of integers in TIFF: SHORT, LONG, IFD, LONG8, IFD8."""

_ASCII, _LONG, _LONG8 = 2, 4, 16
_ZEROS = bytes(2**20)

_LAYOUT, _LAYOUT_BYTES = b"GDAL_STRUCTURAL_METADATA_SIZE=", 1024
"""How GDAL's note on the order of a file's parts begins, behind the header; and how far it may reach."""

_IN_ORDER, _CHANGED = b"KNOWN_INCOMPATIBLE_EDITION=NO\n ", b"KNOWN_INCOMPATIBLE_EDITION=YES\n"

Keep = Callable[[int, bytes], None]


class TiffPatch:
    """A copy of a TIFF, changed in place.

    Parameters
    ----------
    file : BinaryIO
        The copy, open for reading and writing.
    tif : tifffile.TiffFile
        The file it is a copy of.
    keep : callable
        Told of each place that is written over, and what was there.
    """

    def __init__(self, file: BinaryIO, tif: Any, keep: Keep) -> None:
        self._order: Literal["<", ">"]
        self._file, self._keep, self._name = file, keep, tif.filehandle.path
        self._big, self._order = bool(tif.is_bigtiff), tif.byteorder
        self._parent = file.seek(0, os.SEEK_END)
        self._end = self._parent
        self._pages = list(_all_pages(tif))
        self._fixed = _merged(_structure(tif, self._pages))
        self._new: dict[int, tuple[Any, dict[int, tuple[int, int]]]] = {}
        self._replaced: list[tuple[int, int]] = []
        self._still = {page.offset: np.ones(len(page.dataoffsets), bool) for page in self._pages}

    @property
    def appended(self) -> int:
        """Bytes put at the end of the file."""
        return self._end - self._parent

    def append(self, data: bytes) -> int:
        """Put bytes at the end of the file, at an even place; return the place.

        Raises
        ------
        OutputError
            If the file would be larger than a classic TIFF can be.
        """
        at = self._end + self._end % 2
        if not self._big and at + len(data) > CLASSIC_BYTES:
            raise OutputError(
                f"{self._name}: a classic TIFF that would pass 4 GiB with new tiles; make it a BigTIFF first: tiffcp -8 IN OUT"
            )
        self._file.seek(self._end)
        self._file.write(bytes(at - self._end) + data)
        self._end = at + len(data)
        return at

    def put_tile(self, page: Any, number: int, data: bytes) -> None:
        """Put an encoded tile at the end of the file; `finish` lets its page point to it.

        Raises
        ------
        ImageError
            If the page says that the old tile lies where it cannot.
        """
        at, size = (int(values[number]) for values in (page.dataoffsets, page.databytecounts))
        if size:
            if at < 8 or at + size > self._parent or _meets(self._fixed, at, at + size):
                raise ImageError(
                    f"{self._name}: a tile from byte {at} to {at + size}, among the file's entries or beyond its end; {DAMAGED}"
                )
            self._replaced.append((at, at + size))
        self._still[page.offset][number] = False
        self._new.setdefault(page.offset, (page, {}))[1][number] = (self.append(data), len(data))

    def finish(self) -> int:
        """Let the pages point to their new tiles, and clear the old ones.

        Returns
        -------
        int
            Bytes of old tiles that stay, because other tiles lie there, too.
        """
        for page, tiles in self._new.values():
            self._set(page, OFFSETS, {number: at for number, (at, _) in tiles.items()})
            self._set(page, COUNTS, {number: size for number, (_, size) in tiles.items()})
        self._disclaim_layout()
        return self._clear_replaced()

    def describe(self, page: Any, text: bytes) -> None:
        """Give the first page another ImageDescription."""
        text += b"\0"
        if DESCRIPTION in page.tags:
            self._point(page.tags[DESCRIPTION], _ASCII, len(text), text)
        else:
            self._add_description(page, text)

    def overwrite(self, at: int, data: bytes) -> None:
        """Write over what is in the file, and hand on what was there."""
        if at < 0 or at + len(data) > self._end:
            raise ImageError(f"{self._name}: an entry beyond its end; {DAMAGED}")
        if at < self._parent:
            self._file.seek(at)
            self._keep(at, self._file.read(min(len(data), self._parent - at)))
        self._file.seek(at)
        self._file.write(data)

    def _clear_replaced(self) -> int:
        used = _merged([(at, at + size) for page in self._pages for at, size in self._remaining(page)])
        shared = 0
        for start, stop in _merged(self._replaced).tolist():
            shared += stop - start
            for first, last in _between(used, start, stop):
                shared -= last - first
                for at in range(first, last, len(_ZEROS)):
                    self.overwrite(at, _ZEROS[: last - at])
        return shared

    def _disclaim_layout(self) -> None:
        """Say in a cloud-optimised TIFF that its tiles do not lie in order any more, each behind its length.

        GDAL reads the length there, over the network, and not where the directory says it, unless the file says that it was
        changed; GDAL's own changes say so in the same place.
        """
        start = 16 if self._big else 8
        self._file.seek(start)
        note = self._file.read(_LAYOUT_BYTES)
        if self._new and note.startswith(_LAYOUT) and (at := note.find(_IN_ORDER)) >= 0:
            self.overwrite(start + at, _CHANGED)

    def _remaining(self, page: Any) -> list[tuple[int, int]]:
        still = np.flatnonzero(self._still[page.offset]).tolist()
        sizes = page.databytecounts
        return [(page.dataoffsets[i], sizes[i]) for i in still if i < len(sizes) and sizes[i]]

    def _set(self, page: Any, code: int, values: Mapping[int, int]) -> None:
        """Set some of the integers of a tag; they move to the end of the file, as larger ones, if they do not fit."""
        tag = page.tags.get(code)
        if tag is None or int(tag.dtype) not in _FORMATS or max(values, default=0) >= tag.count:
            raise ImageError(f"{self._name}: no list of its tiles that fits them (tag {code}); {DAMAGED}")
        one = struct.Struct(self._order + _FORMATS[int(tag.dtype)])
        if max(values.values(), default=0) < 1 << 8 * one.size:
            for index, value in values.items():
                self.overwrite(tag.valueoffset + index * one.size, one.pack(value))
            return
        kind = _LONG8 if self._big else _LONG
        wide = np.dtype(_FORMATS[kind]).newbyteorder(self._order)
        self._file.seek(tag.valueoffset)
        narrow = np.dtype(_FORMATS[int(tag.dtype)]).newbyteorder(self._order)
        all_values = np.frombuffer(self._file.read(tag.count * one.size), narrow).astype(wide)
        all_values[list(values)] = list(values.values())
        self._point(tag, kind, tag.count, all_values.tobytes())

    def _point(self, tag: Any, kind: int, count: int, data: bytes) -> None:
        """Let an entry of a directory hold other data, of another type and count."""
        self.overwrite(tag.offset + 2, self._entry(0, kind, count, data)[2:])

    def _entry(self, code: int, kind: int, count: int, data: bytes) -> bytes:
        room = 8 if self._big else 4
        held = data if len(data) <= room else struct.pack(self._order + ("Q" if self._big else "I"), self.append(data))
        return struct.pack(self._order + ("HHQ" if self._big else "HHI"), code, kind, count) + held.ljust(room, b"\0")

    def _add_description(self, page: Any, text: bytes) -> None:
        """Write the first directory anew at the end, with one more entry."""
        count, entry = ("Q", 20) if self._big else ("H", 12)
        head = struct.calcsize(count)
        self._file.seek(page.offset)
        number = struct.unpack(self._order + count, self._file.read(head))[0]
        body = self._file.read(number * entry)
        following = self._file.read(8 if self._big else 4)
        new = self._entry(DESCRIPTION, _ASCII, len(text), text)
        entries = [*(body[i : i + entry] for i in range(0, len(body), entry)), new]
        entries.sort(key=lambda e: struct.unpack(self._order + "H", e[:2])[0])
        at = self.append(struct.pack(self._order + count, number + 1) + b"".join(entries) + following)
        self.overwrite(8 if self._big else 4, struct.pack(self._order + ("Q" if self._big else "I"), at))


def _all_pages(tif: Any) -> Iterator[Any]:
    """Every directory of a TIFF once, those of reduced levels too."""
    seen: set[int] = set()
    waiting = [page.aspage() for page in tif.pages]
    while waiting:
        page = waiting.pop()
        if page.offset in seen:
            continue
        seen.add(page.offset)
        yield page
        if page.subifds:
            waiting += [sub.aspage() for sub in page.pages]


def _structure(tif: Any, pages: Sequence[Any]) -> list[tuple[int, int]]:
    """Where the header, the directories and the values of their entries lie."""
    kind = tif.tiff
    parts = [(0, 16 if tif.is_bigtiff else 8)]
    for page in pages:
        entries = kind.tagnosize + kind.tagsize * len(page.tags) + kind.offsetsize
        parts.append((page.offset, page.offset + entries))
        parts += [(tag.valueoffset, tag.valueoffset + tag.valuebytecount) for tag in page.tags]
    return parts


def _merged(ranges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Half-open ranges ``(n, 2)``, sorted, those that meet made one."""
    parts: list[list[int]] = []
    for start, stop in sorted(ranges):
        if parts and start <= parts[-1][1]:
            parts[-1][1] = max(parts[-1][1], stop)
        else:
            parts.append([start, stop])
    return np.array(parts, np.int64).reshape(-1, 2)


def _between(ranges: NDArray[np.int64], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that lie in none of merged ranges."""
    for first, last in ranges[np.searchsorted(ranges[:, 1], start, side="right") :].tolist():
        if first >= stop:
            break
        if first > start:
            yield start, first
        start = last
    if start < stop:
        yield start, stop


def _meets(ranges: NDArray[np.int64], start: int, stop: int) -> bool:
    """Whether a range shares a byte with one of merged ranges."""
    after = int(np.searchsorted(ranges[:, 1], start, side="right"))
    return after < len(ranges) and bool(ranges[after, 0] < stop)
