"""Counter-based random fields: any box of a field can be drawn alone, by any worker, with the same bits.

A field is cut into global tiles of 64 x 64 pixels. A tile's bits are the Philox-4x64-10 stream with

* key = (seed, stream and pass and step packed into 64 bits),
* counter = (0, 0, tile row, tile column) as its start (the generator counts in the first word),

so a value depends on nothing but (seed, stream, pass, step, y, x, channel). Only Philox' raw 64-bit words are used, which
NumPy guarantees never to change; normal deviates come from them by Box-Muller in float64, one word giving two deviates.
``tests/base/test_noise.py`` pins values: **this module can never change its numbers again**.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box

TILE = 64
"""Side of a global tile in field pixels."""


class Stream(IntEnum):
    """Independent fields of one run."""

    START = 1
    """The noise of the start state and of held pixels: one field for all steps."""
    STEP = 2
    """Fresh noise of stochastic sampling (eta > 0), one field per step."""
    PRIORITY = 3
    """Crop priorities of random patches, one field per step."""
    SHIFT = 4
    """Lattice offsets of the shifted plan, one pair per step."""
    LAYOUT = 5
    """Smooth fields and shapes of sampled layouts; the pass is the octave, the step the field's number."""
    MASK = 6
    """The noise from which the mask model draws a class map."""
    COHORT = 7
    """What the slides of a cohort are; the step is the slide's number in its part."""
    TOKENS = 8
    """The noise from which tokens of a tile are drawn; the seed is the tile's."""
    TOLD = 9
    """Noise on the drawn grid that the next finer one is told."""


def _bits(seed: int, stream: Stream, level: int, step: int, tile: tuple[int, int], count: int) -> NDArray[np.uint64]:
    """Draw the first ``count`` raw words of one tile."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is outside 0 .. 2**64 - 1")
    key = np.array([seed, (int(stream) << 56) | (level << 48) | step], dtype=np.uint64)
    counter = np.array([0, 0, tile[0], tile[1]], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def _normal_tile(seed: int, stream: Stream, level: int, step: int, tile: tuple[int, int], channels: int) -> NDArray[np.float32]:
    """One tile of normal deviates, ``[channels, 64, 64]``."""
    words = _bits(seed, stream, level, step, tile, channels * TILE * TILE // 2)
    radius = np.sqrt(-2.0 * np.log(((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32))
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2.0 * np.pi * 2.0**-32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.astype(np.float32).reshape(channels, TILE, TILE)


def normal_field(seed: int, stream: Stream, box: Box, channels: int, level: int = 0, step: int = 0) -> NDArray[np.float32]:
    """Draw a box of the standard normal field.

    Parameters
    ----------
    seed : int
        0 .. 2**64 - 1.
    stream : Stream
        Which field.
    box : Box
        Latent pixels, non-negative coordinates.
    channels : int
        Latent channels. Channel k of a field does not depend on how many channels are drawn.
    level, step : int
        Pass of the run (0-255; of a sampled layout: octave), and step.

    Returns
    -------
    ndarray
        float32 ``[channels, box.height, box.width]``.
    """
    out = np.empty((channels, *box.shape), dtype=np.float32)
    for tile, inner, outer in _tiles(box):
        out[:, outer[0], outer[1]] = _normal_tile(seed, stream, level, step, tile, channels)[:, inner[0], inner[1]]
    return out


def priority_field(seed: int, box: Box, level: int = 0, step: int = 0) -> NDArray[np.uint64]:
    """Draw a box of the uniform 64-bit priority field, uint64 ``[box.height, box.width]``."""
    out = np.empty(box.shape, dtype=np.uint64)
    for tile, inner, outer in _tiles(box):
        words = _bits(seed, Stream.PRIORITY, level, step, tile, TILE * TILE).reshape(TILE, TILE)
        out[outer] = words[inner]
    return out


def offset(seed: int, level: int, step: int, bound: int) -> tuple[int, int]:
    """Draw one lattice offset ``(dy, dx)``, each uniform in ``0 .. bound - 1``."""
    words = _bits(seed, Stream.SHIFT, level, step, (0, 0), 2)
    return int(words[0] % np.uint64(bound)), int(words[1] % np.uint64(bound))


def uniforms(seed: int, stream: Stream, count: int, level: int = 0, step: int = 0) -> NDArray[np.float64]:
    """Draw ``count`` numbers, uniform in (0, 1), of one stream, pass and step; float64 ``[count]``."""
    words = _bits(seed, stream, level, step, (0, 0), count)
    return ((words >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32


def _tiles(box: Box) -> list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """Every global tile that meets ``box``: its index, its part inside the tile, its part inside the box."""
    if box.y0 < 0 or box.x0 < 0:
        raise ValueError(f"{box} starts before the field's origin")
    parts = []
    for ty in range(box.y0 // TILE, -(-box.y1 // TILE)):
        for tx in range(box.x0 // TILE, -(-box.x1 // TILE)):
            tile = Box(ty * TILE, tx * TILE, (ty + 1) * TILE, (tx + 1) * TILE)
            common = tile.intersect(box)
            parts.append(((ty, tx), common.relative_to(tile).slices, common.relative_to(box).slices))
    return parts
