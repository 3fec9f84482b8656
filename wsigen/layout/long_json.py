"""JSON of many megabytes, element by element: values of Python take up to 25 times the memory of their text.

What has little text is parsed at once. Of a longer object each entry is read for itself; a longer list is a `LongList`, of
which only what somebody walks through is ever parsed. So reading takes the memory of the text, of one element, and of what is
kept of it, whatever the text holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LONG = 2**20
"""Bytes of text that are parsed at once, at most."""

BATCH = 2**16
"""Bytes of consecutive short elements that are parsed together: it is faster than one by one."""

BLOCK = 2**18
"""Bytes that are searched for commas at a time."""

MOST_ENTRIES = 2**17
"""Of an object of more than `LONG` bytes; each takes 200 bytes, and maybe 10 in the text."""

MOST_DEPTH = 12
"""Levels of values longer than `LONG` in each other, each of which is searched for the commas of all of its text. A ring lies 6
deep in a collection of features, 8 in one of geometries, and 3 more for each object around it."""

Hook = Callable[[dict[str, Any]], Any]

_SPACE = b" \t\n\r"
_LEADING = re.compile(rb"[ \t\n\r]*")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_KEY = re.compile(rb'[ \t\n\r]*("(?:[^"\\]|\\.){0,1000}")[ \t\n\r]*:', re.DOTALL)
_STEP = np.zeros(256, np.int32)
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1
_SIGN = _STEP != 0
_SIGN[list(b'",')] = True


@dataclass(frozen=True, slots=True)
class LongList:
    """A list whose elements are parsed when they are asked for, each time anew.

    Attributes
    ----------
    text : bytes
        UTF-8; the list is ``text[start:stop]``, brackets included.
    hook : callable
        As ``object_hook`` of ``json.loads``.
    depth : int
        In how many others of its kind it lies.
    """

    text: bytes = field(repr=False)
    start: int
    stop: int
    hook: Hook
    depth: int

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[Any]]:
        """Yield consecutive elements, some at a time.

        Raises
        ------
        ValueError, RecursionError
            If the text is not JSON.
        """
        first, last = None, self.start
        for start, stop in _split(self.text, self.start, self.stop):
            if first is None:
                first = start
            elif stop - first > BATCH:
                yield self._parsed(first, last)
                first = start
            last = stop
        if first is not None:
            yield self._parsed(first, last)

    def _parsed(self, start: int, stop: int) -> list[Any]:
        if stop - start > BATCH:  # one element
            return [parse_long(self.text, self.hook, start, stop, self.depth + 1)]
        text = self.text[start:stop]
        if not text.strip(_SPACE):
            raise ValueError(f"an element is missing at byte {start}")
        return list(json.loads(f"[{text.decode()}]", object_hook=self.hook))


def parse_long(text: bytes, hook: Hook, start: int = 0, stop: int | None = None, depth: int = 0) -> Any:
    """Return the value of a JSON text, with a `LongList` for each list of more than `LONG` bytes.

    NaN and names given twice are taken, as ``json.loads`` takes them.

    Parameters
    ----------
    text : bytes
        UTF-8; the value is ``text[start:stop]``.
    hook : callable
        As ``object_hook`` of ``json.loads``: makes something else of every object.

    Raises
    ------
    ValueError, RecursionError
        If it is not JSON as far as it is parsed, or beyond a limit of this module.
    """
    start, stop = _stripped(text, start, len(text) if stop is None else stop)
    if stop - start <= LONG:
        return json.loads(text[start:stop].decode(), object_hook=hook)
    if depth > MOST_DEPTH:
        raise ValueError(f"nests more than {MOST_DEPTH} levels")
    if text[start] == ord("["):
        return LongList(text, start, stop, hook, depth)
    if text[start] == ord("{"):
        return hook(_entries(text, hook, start, stop, depth))
    if text[start] == ord('"'):  # a picture in base 64
        return json.loads(text[start:stop].decode())
    raise ValueError(f"no object, list or string, in {stop - start} bytes")


def _entries(text: bytes, hook: Hook, start: int, stop: int, depth: int) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for count, (begin, end) in enumerate(_split(text, start, stop)):
        key = _KEY.match(text, begin, end)
        if key is None:
            raise ValueError(f"no name of an entry at byte {begin}")
        if count == MOST_ENTRIES:
            raise ValueError(f"an object of {stop - start} bytes has more than {MOST_ENTRIES} entries")
        entries[json.loads(key[1].decode())] = parse_long(text, hook, key.end(), end, depth + 1)
    return entries


def _stripped(text: bytes, start: int, stop: int) -> tuple[int, int]:
    leading = _LEADING.match(text, start, stop)
    start = leading.end() if leading else start
    while stop > start and text[stop - 1] in _SPACE:
        tail = text[max(start, stop - BLOCK) : stop]
        stop -= len(tail) - len(tail.rstrip(_SPACE))
    return start, stop


def _split(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield where each element of the list or object ``text[start:stop]`` begins and ends.

    What lies between its commas is not looked at, except for brackets and strings, in which commas are none of its own.
    """
    begin, depth, quoted, escaped = start + 1, 0, 0, False
    for at in range(start, stop, BLOCK):
        block = text[at : min(at + BLOCK, stop)]
        block = b" " + block[1:] if escaped else block
        block = _ESCAPE.sub(b"  ", block) if b"\\" in block else block
        escaped = block.endswith(b"\\")
        signs = np.frombuffer(block, np.uint8)
        places = np.flatnonzero(_SIGN[signs])
        if not len(places):
            continue
        signs = signs[places]
        inside = (np.cumsum(signs == ord('"')) + quoted) % 2
        levels = np.cumsum(np.where(inside, 0, _STEP[signs])) + depth
        ends = places[levels < 1]
        last = len(signs) if not len(ends) else int(np.searchsorted(places, ends[0]))
        for comma in places[:last][((signs == ord(",")) & (levels == 1) & (inside == 0))[:last]].tolist():
            yield begin, at + comma
            begin = at + comma + 1
        if len(ends):
            break
        depth, quoted = int(levels[-1]), int(inside[-1])
    else:
        raise ValueError(f"what begins at byte {start} does not end")
    end = at + int(ends[0])
    if end != stop - 1 or text[end] != ord("]" if text[start] == ord("[") else "}"):
        raise ValueError(f"what begins at byte {start} does not end where it should, at byte {stop - 1}")
    if begin > start + 1 or text[begin:end].strip(_SPACE):
        yield begin, end
