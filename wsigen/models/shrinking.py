"""A halo that shrinks while a window is decoded: what no later layer looks at is cut off at every upsampling.

Context is needed in front of all layers of a decoder, but what the last layers need of it is a few pixels. Decoding all of the
halo to full resolution costs (128 + 2 14)^2 / 128^2 = 1.49 windows for a window of 128 latent px and a halo of 14; cut off
at each upsampling, 1.09. The window's own pixels see the same neighbours either way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wsigen.models.receptive import Upsampling

Sides = tuple[int, int, int, int]
"""Pixels beyond a window: top, bottom, left, right."""


class _Current(threading.local):
    """Context around the window that the calling thread decodes, in px of the layer it is at; None: nothing is cut off."""

    sides: Sides | None = None


class ShrinkingHalo:
    """Hooks at the upsamplings of a decoder.

    Parameters
    ----------
    decoder:
        Of an ``AutoencoderKL`` or ``AutoencoderTiny``.
    needs:
        ``receptive.upsamplings`` of its config.
    factor:
        Of each upsampling.
    """

    def __init__(self, decoder: nn.Module, needs: list[Upsampling], factor: int) -> None:
        self._current = _Current()
        self._factor = factor
        for (first, last), need in zip(_places(decoder), needs, strict=True):
            first.register_forward_pre_hook(lambda _, args, need=need: self._before(args, need.before))
            last.register_forward_hook(lambda _, args, given, need=need: self._after(given, need.after))

    @contextmanager
    def around(self, halo: Sides) -> Iterator[None]:
        """Decode in this thread with ``halo`` latent px around the window; `core` then cuts off what is left of it."""
        self._current.sides = halo
        try:
            yield
        finally:
            self._current.sides = None

    def core(self, image: Tensor) -> Tensor:
        """The window of a decoded picture, within `around`."""
        return self._cut(image, 0)

    def _before(self, args: tuple[Any, ...], need: int) -> tuple[Any, ...]:
        return (self._cut(args[0], need), *args[1:])

    def _after(self, given: Tensor, need: int) -> Tensor:
        sides = self._current.sides
        if sides is not None:
            top, bottom, left, right = (side * self._factor for side in sides)
            self._current.sides = (top, bottom, left, right)
        return self._cut(given, need)

    def _cut(self, x: Tensor, need: int) -> Tensor:
        """Leave at most ``need`` pixels on each side; at the canvas' edge there are none."""
        sides = self._current.sides
        if sides is None or max(sides) <= need:
            return x
        top, bottom, left, right = (max(0, side - need) for side in sides)
        self._current.sides = (min(sides[0], need), min(sides[1], need), min(sides[2], need), min(sides[3], need))
        height, width = x.shape[-2:]
        return x[..., top : height - bottom, left : width - right].contiguous(memory_format=torch.channels_last)


def _places(decoder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Where upsampling begins and where its convolution ends."""
    if hasattr(decoder, "up_blocks"):
        found = [up for block in decoder.up_blocks for up in block.upsamplers or ()]  # type: ignore[union-attr]  # modules
        return [(up, up) for up in found]
    layers = list(decoder.layers)  # type: ignore[arg-type]  # a Sequential
    return [(layer, layers[k + 1]) for k, layer in enumerate(layers) if isinstance(layer, nn.Upsample)]
