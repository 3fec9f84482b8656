"""The coefficients of a baseline JPEG, Huffman coded (ITU-T T.81, F.1 and F.2), without loss and without a loop over bits.

Every place in the stream is looked up in every table at once, by NumPy; left to Python is one step for each symbol.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Coefficients of a block of 8 x 8 px."""

DC, AC = 0, 1
"""Classes of Huffman tables: for the first coefficient of a block, and for the others."""

DAMAGED = "damaged JPEG data"

_END, _SIXTEEN_ZEROS = 0x00, 0xF0

Blocks = NDArray[np.int32]
Tables = Sequence[tuple[bytes, bytes]]
"""Huffman tables (`DC`, `AC`) of each component: 16 counts of codes by length, and the symbols (T.81, B.2.4.2)."""


class NoCodeError(ValueError):
    """A Huffman table has no code for a symbol."""


def decode(data: bytes, mcus: int, slots: Sequence[int], tables: Tables) -> Blocks:
    """Decode what lies between two restart markers, without stuffed bytes.

    Parameters
    ----------
    mcus : int
        How many MCUs it holds.
    slots : sequence of int
        The component of each block of an MCU.

    Returns
    -------
    int32 ``(mcus * slots, 64)``, in zigzag order.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    windows = _windows(data + b"\xff" * 8)
    steps = {}
    for kind, table in {(kind, table) for pair in tables for kind, table in enumerate(pair)}:
        found = _lookup(table, kind)
        steps[kind, table] = found.step[windows].tobytes(), found.skip[windows].tobytes()
    ways = [(steps[DC, tables[c][DC]][0], *steps[AC, tables[c][AC]]) for c in slots]
    places, starts, end = _walk(ways, mcus)
    if end > len(data) * 8:
        raise ValueError(f"{DAMAGED}: it ends early")
    return _values(windows, places, starts, np.array(slots), tables)


def encode(blocks: Blocks, slots: Sequence[int], tables: Tables) -> bytes:
    """Encode blocks ``(mcus * slots, 64)``, filled up with ones to a byte, with stuffed bytes.

    Raises
    ------
    NoCodeError
        If a table lacks a code.
    """
    differences = blocks.astype(np.int64)
    component = np.resize(np.array(slots), len(blocks))
    for c in range(len(tables)):
        mine = np.flatnonzero(component == c)
        differences[mine, 0] = np.diff(differences[mine, 0], prepend=0)
    row, kind, symbol, value, size = _symbols(differences)
    code, length = (np.zeros(len(row), np.int64) for _ in range(2))
    for c, pair in enumerate(tables):
        for k, table in enumerate(pair):
            here = np.flatnonzero((component[row] == c) & (kind == k))
            codes, lengths = _codes(table)
            code[here], length[here] = codes[symbol[here]], lengths[symbol[here]]
    if not length.all():
        raise NoCodeError(f"{DAMAGED}: a coefficient for which its Huffman table has no code")
    extra = np.where(value < 0, value + (1 << size) - 1, value)
    return _packed(code << size | extra, length + size).replace(b"\xff", b"\xff\x00")


def _values(
    windows: NDArray[np.uint16], places: NDArray[np.int64], starts: NDArray[np.int64], slots: NDArray[np.int64], tables: Tables
) -> Blocks:
    """The coefficients that symbols at some places stand for."""
    block = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(places)))
    kind = np.ones(len(places), np.int64)
    kind[starts] = DC
    component = np.resize(slots, len(starts))
    length, size, skip = (np.zeros(len(places), np.int64) for _ in range(3))
    for c, pair in enumerate(tables):
        for k, table in enumerate(pair):
            here = np.flatnonzero((component[block] == c) & (kind == k))
            found, seen = _lookup(table, k), windows[places[here]]
            length[here], size[here], skip[here] = found.length[seen], found.size[seen], found.skip[seen]
    if not length.all():
        raise ValueError(f"{DAMAGED}: a code that is in no table")
    value = windows[places + length].astype(np.int64) >> (16 - size)
    value = np.where((size > 0) & (value < 1 << np.maximum(size - 1, 0)), value - (1 << size) + 1, value)
    passed = np.cumsum(skip)
    at = passed - (passed - skip)[starts][block] - 1
    told = (size > 0) | (kind == DC)
    if (at[told] >= BLOCK).any():
        raise ValueError(f"{DAMAGED}: a block of more than {BLOCK} coefficients")
    blocks = np.zeros((len(starts), BLOCK), np.int32)
    blocks[block[told], at[told]] = value[told]
    for c in range(len(tables)):
        mine = np.flatnonzero(component == c)
        blocks[mine, 0] = np.cumsum(blocks[mine, 0])
    return blocks


@dataclass(frozen=True, slots=True)
class _Lookup:
    """By the next 16 bits: length of the code (0 if there is none), bits after it, both, and coefficients it stands for."""

    length: NDArray[np.uint8]
    size: NDArray[np.uint8]
    step: NDArray[np.uint8]
    skip: NDArray[np.uint8]


@functools.lru_cache(maxsize=64)
def _codes(table: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Code and length of each symbol (T.81, C.2); length 0 without one."""
    codes, lengths = np.zeros(256, np.int64), np.zeros(256, np.int64)
    code, at = 0, 16
    for length in range(1, 17):
        for symbol in table[at : at + table[length - 1]]:
            if code >> length:
                raise ValueError(f"{DAMAGED}: a Huffman table of too many codes")
            codes[symbol], lengths[symbol] = code, length
            code += 1
        at += table[length - 1]
        code <<= 1
    return codes, lengths


@functools.lru_cache(maxsize=64)
def _lookup(table: bytes, kind: int) -> _Lookup:
    length, symbol = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    for s, (code, bits) in enumerate(zip(*_codes(table), strict=True)):
        if bits:
            places = slice(code << (16 - bits), (code + 1) << (16 - bits))
            length[places], symbol[places] = bits, s
    size, skip = symbol & np.uint8(15), np.ones(1 << 16, np.uint8)
    if kind == DC:
        length[symbol > 15] = 0
    else:
        skip += symbol >> np.uint8(4)
        length[(size == 0) & (symbol != _END) & (symbol != _SIXTEEN_ZEROS)] = 0
        skip[symbol == _END] = BLOCK
        skip[length == 0] = BLOCK  # ends the block; `_values` finds it
    return _Lookup(length, size, length + size, skip)


def _windows(data: bytes) -> NDArray[np.uint16]:
    """The 16 bits that begin at each bit."""
    b = np.frombuffer(data, np.uint8).astype(np.uint32)
    three = b[:-2] << 16 | b[1:-1] << 8 | b[2:]
    return (three[:, None] >> (8 - np.arange(8, dtype=np.uint32))).astype(np.uint16).ravel()


def _walk(ways: list[tuple[bytes, bytes, bytes]], mcus: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Follow the codes from one to the next: the place of each symbol, the first symbol of each block, the last place.

    Parameters
    ----------
    ways : list
        For each block of an MCU, by place: bits of a DC symbol, bits of an AC symbol, coefficients that this stands for.
    """
    places: list[int] = []
    starts: list[int] = []
    put, at = places.append, 0
    try:
        for _ in range(mcus):
            for dc, ac, skip in ways:
                starts.append(len(places))
                put(at)
                at += dc[at]
                k = 1
                while k < BLOCK:
                    put(at)
                    k += skip[at]
                    at += ac[at]
    except IndexError as error:
        raise ValueError(f"{DAMAGED}: it ends early") from error
    return np.array(places, np.int64), np.array(starts, np.int64), at


def _symbols(blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Block, class, symbol, value and bits of the value of each code, in their order in the stream (T.81, F.1.2).

    Parameters
    ----------
    blocks : ndarray
        ``(n, 64)``, the first of each the difference to the block before.
    """
    n = len(blocks)
    row, k = np.nonzero(blocks[:, 1:])
    k = k + 1
    first = np.diff(row, prepend=-1) > 0
    run = k - np.where(first, 0, np.roll(k, 1)) - 1
    value = blocks[row, k]
    size = _bit_length(value)
    last = np.zeros(n, np.int64)
    np.maximum.at(last, row, k)
    ended = np.flatnonzero(last < BLOCK - 1)
    zeros = np.repeat(np.arange(len(row)), run >> 4)
    nothing = [np.zeros(len(part), np.int64) for part in (zeros, ended)]
    dc = blocks[:, 0]
    rows = np.concatenate([np.arange(n), row[zeros], row, ended])
    turn = np.concatenate([np.zeros(n, np.int64), 2 * k[zeros] - 1, 2 * k, np.full(len(ended), 2 * BLOCK)])
    kinds = np.concatenate([np.zeros(n, np.int64), np.ones(len(rows) - n, np.int64)])
    symbols = np.concatenate([_bit_length(dc), nothing[0] + _SIXTEEN_ZEROS, (run & 15) << 4 | size, nothing[1] + _END])
    values = np.concatenate([dc, nothing[0], value, nothing[1]])
    sizes = np.concatenate([_bit_length(dc), nothing[0], size, nothing[1]])
    order = np.argsort(rows * (4 * BLOCK) + turn, kind="stable")
    return rows[order], kinds[order], symbols[order], values[order], sizes[order]


def _bit_length(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.frexp(np.abs(values))[1].astype(np.int64)


def _packed(codes: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """Codes of some bits one after the other, filled up with ones."""
    ends = np.cumsum(lengths)
    of = np.repeat(np.arange(len(codes)), lengths)
    left = ends[of] - 1 - np.arange(len(of))
    bits = (codes[of] >> left & 1).astype(np.uint8)
    return np.packbits(np.concatenate([bits, np.ones(-len(bits) % 8, np.uint8)])).tobytes()
