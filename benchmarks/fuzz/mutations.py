"""Spoil good files: as bytes, and as the values that JSON and YAML hold."""

from __future__ import annotations

import copy
import datetime
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

Spoiled = Callable[[bytes, random.Random], bytes]

WORDS = (0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
"""Values that lie at the ends of what integers of files can hold."""


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, insert or overwrite some bytes; most often near the beginning, where the headers lie."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            return bytes(out)
        at = rng.randrange(len(out)) if rng.random() < 0.4 else rng.randrange(min(len(out), 400))
        match rng.randrange(6):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at] = rng.randrange(256)
            case 2:
                del out[at:]
            case 3:
                del out[at : at + rng.choice((1, 2, 4, 64))]
            case 4:
                out[at:at] = out[at : at + rng.choice((1, 4, 64, 1024))]
            case _:
                size = rng.choice((2, 4, 8))
                out[at : at + size] = rng.choice(WORDS).to_bytes(8, rng.choice(("little", "big")))[:size]
    return bytes(out)


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _strange(rng: random.Random) -> Any:
    """A value that no writer of settings means."""
    return rng.choice(
        (
            None,
            True,
            -1,
            0,
            10**9,
            10**30,
            2**64,
            -(10**300),
            1e308,
            1e-308,
            float("nan"),
            float("inf"),
            "",
            " ",
            "\0",
            "a\0b",
            "\x1b[2J",
            "ü" * 300,
            "../" * 40,
            "http://127.0.0.1:9/x",
            "x" * 100_000,
            [],
            {},
            [None],
            [0] * 1000,
            {"": ""},
            {"a": {"b": {"c": {}}}},
            _nested(30),
            datetime.date(2026, 1, 1),
            [[1, 2], [3]],
            "10" * 200,
        )
    )


def spoil_values(value: Any, rng: random.Random) -> Any:
    """Replace, remove, double or move one to four values of a tree of dictionaries and lists."""
    out = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = [*_places(out)]
        if not places:
            return _strange(rng)
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del holder[key]
            case 1:
                other, from_key = rng.choice(places)
                holder[key] = copy.deepcopy(other[from_key])
            case 2 if isinstance(holder, dict):
                holder[rng.choice(("unknown", 5, None, "", "\0", "class", "size"))] = _strange(rng)
            case 2:
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = _strange(rng)
    return out


def _places(value: Any) -> Any:
    """Every (container, key) of a tree."""
    if isinstance(value, dict | list):
        for key in [*value] if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
RAW_YAML = (
    BOMB,
    "when: 2026-13-45\n",
    "size: 0x\n",
    "a: !!python/object/apply:os.system [true]\n",
    "a: !!binary ===\n",
    "- " * 3000,
    "{" * 3000,
    "[" * 100_000,
    "\t: \t",
    "a: " + "9" * 5000 + "\n",
    "? " * 500,
    "%YAML 9.9\n---\n",
    "a: 1:60:60:60\n",
    "<<: *x\n",
    "\ufeffa: 1\n",
    "a: .nan\nb: .inf\nc: -.inf\n",
    "&a a: *a\n",
)


def spoil_yaml(data: bytes, rng: random.Random) -> bytes:
    """Spoil YAML: its values, its bytes, or something quite different in its place."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(RAW_YAML).encode()
    if kind < 0.2:
        return data + rng.choice(RAW_YAML).encode()
    if kind < 0.4:
        return spoil_bytes(data, rng)
    return yaml.safe_dump(spoil_values(yaml.safe_load(data), rng), allow_unicode=True).encode("utf-8", "replace")


def spoil_json(data: bytes, rng: random.Random) -> bytes:
    """Spoil JSON: its values, its bytes, or its depth."""
    kind = rng.random()
    if kind < 0.03:
        return rng.choice((b"[" * 200_000, b'{"a":' * 50_000, b"1" * 5000, b"", b"\xff\xfe[\0]\0", b"NaN", b'"\\ud800"'))
    if kind < 0.3:
        return spoil_bytes(data, rng)
    return json.dumps(spoil_values(json.loads(data), rng), default=str).encode()
