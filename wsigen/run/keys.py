"""What a key of a run's store belongs to, read from its name."""

from __future__ import annotations

import re
from typing import NamedTuple

from wsigen.base.errors import RunError

Index = tuple[int, int]


class Place(NamedTuple):
    """What a key of the store belongs to.

    Attributes
    ----------
    pass_index : int
        The pass.
    once : str
        ``classes``, ``starts``, ``activity`` or ``norm``, which are made once per pass, or ``known``, once per chunk; empty for
        the state of a chunk.
    half_step : int
        Half-step that writes the key.
    ij : tuple of int
        The chunk.
    """

    pass_index: int
    once: str
    half_step: int = 0
    ij: Index = (0, 0)


_PASS = re.compile(r"pass-(\d+)/(.+)")
_STATE = re.compile(r"(latents|history)/c/(\d+)/0/(\d+)/(\d+)")
KNOWN = re.compile(r"known/c/0/0/(\d+)/(\d+)")
_PARTIAL = re.compile(r"partials/c/(\d+)/(\d+)/(\d+)/0/0/0")


def place_of_key(key: str) -> Place:
    """Say what a key, relative to the run's group, belongs to.

    Raises
    ------
    RunError
        If it is the key of nothing that can be made again.
    """
    match = _PASS.fullmatch(key)
    if match and match[2] in ("classes", "starts", "activity", "norm"):
        return Place(int(match[1]), match[2])
    if match and (known := KNOWN.fullmatch(match[2])):
        return Place(int(match[1]), "known", 0, (int(known[1]), int(known[2])))
    place = place_in_pass(match[2]) if match else None
    if match is None or place is None:
        raise RunError(f"{key}: damaged and nothing can make it again; delete the run directory and generate anew")
    return Place(int(match[1]), "", *place)


def place_in_pass(key: str) -> tuple[int, Index] | None:
    """Half-step and chunk of a key relative to its pass; None for any other. A history goes with the state written after it."""
    if state := _STATE.fullmatch(key):
        return 2 * (int(state[2]) + (state[1] == "history")), (int(state[3]), int(state[4]))
    if partial := _PARTIAL.fullmatch(key):
        return 2 * int(partial[1]) + 1, (int(partial[2]), int(partial[3]))
    return None
