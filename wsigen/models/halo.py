"""The halo: how much context a window is decoded with, what it costs, and how it shrinks on the way.

How far a pixel of a decoder looks follows from the block counts of its config. That context is needed in front of all layers,
but what the last layers need of it is a few pixels: what no later layer looks at is cut off at every upsampling. Decoding all
of the halo to full resolution costs (128 + 2 14)^2 / 128^2 = 1.49 windows for a window of 128 latent px and a halo of 14; cut
off at each upsampling, 1.09. The window's own pixels see the same neighbours either way.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsigen.base.geometry import Box
from wsigen.models.network_config import Config

if TYPE_CHECKING:
    from torch import Tensor, nn

Sides = tuple[int, int, int, int]
"""Pixels beyond a window: top, bottom, left, right."""

EFFECTIVE_HALO = 16
"""Most latent px of context worth decoding: the theoretical radius counts corners of vanishing weight."""

POOLED_PX = 8192
"""Latent px normalised together when the statistics of norms are measured: some hundred megabytes of activations."""

BEFORE_ATTENTION = 3
"""3x3 convolutions, each of a radius of one latent px, before the attention of the middle block, if it has one: the first
one and a residual block."""

_PX = 2**10
"""Pixels of the window that is followed back: any that every upsampling divides."""


def sides(inner: Box, around: Box) -> Sides:
    """What of a box lies around an inner one."""
    return (inner.y0 - around.y0, around.y1 - inner.y1, inner.x0 - around.x0, around.x1 - inner.x1)


def decoder_radius(vae: Config) -> int:
    """Latent px around a window on which its decoded pixels depend, if the decoder has no attention."""
    return _needs(*_layers(vae))[0]


def attended_radius(vae: Config) -> int:
    """The same from the attention of the middle block on."""
    return _needs(*_layers(vae))[BEFORE_ATTENTION]


def attention_of(vae: Config) -> str:
    """Where a decoder has attention: ``"none"``, ``"middle"`` (of the middle block alone: it can be cut) or ``"more"``."""
    if vae.get("_class_name") == "AutoencoderTiny":
        return "none"
    if any("Attn" in block for block in vae.get("up_block_types", ())):
        return "more"
    return "middle" if vae.get("mid_block_add_attention", True) else "none"


def upsamplings(vae: Config) -> list[tuple[int, int]]:
    """Context that is still needed before every upsampling of the decoder and after its convolution, in px there."""
    factor, layers = _layers(vae)
    needs = _needs(factor, layers)
    return [(needs[k], needs[k + 2]) for k, is_up in enumerate(layers) if is_up]


def last_halo(vae: Config) -> int:
    """Latent px around a window that the layers at full resolution, which take most memory, still decode."""
    factor, _ = _layers(vae)
    needs = upsamplings(vae)
    return -(-needs[-1][0] * factor // factor ** len(needs)) if needs else decoder_radius(vae)


class _Current(threading.local):
    """Context around the window that the calling thread decodes, in px of the current layer; None: nothing is cut off."""

    sides: Sides | None = None


class ShrinkingHalo:
    """Hooks that cut the halo of a decoder's windows at its upsamplings.

    Parameters
    ----------
    decoder : nn.Module
        Of an ``AutoencoderKL``, ``AutoencoderTiny`` or ``VQModel``.
    vae : dict
        Config of the autoencoder.
    """

    def __init__(self, decoder: nn.Module, vae: Config) -> None:
        self._current = _Current()
        self._factor, _ = _layers(vae)
        for (first, last), (before, after) in zip(_upsampling_modules(decoder), upsamplings(vae), strict=True):
            first.register_forward_pre_hook(lambda _, args, need=before: (self._cut(args[0], need), *args[1:]))
            last.register_forward_hook(lambda _, args, output, need=after: self._after(output, need))

    @contextmanager
    def around(self, halo: Sides) -> Iterator[None]:
        """Decode in this thread with ``halo`` (latent px) around the window; `core` then cuts off what is left of it."""
        self._current.sides = halo
        try:
            yield
        finally:
            self._current.sides = None

    def core(self, image: Tensor) -> Tensor:
        """The window itself, of what was decoded within `around`: ``(B, 3, h, w)``."""
        return self._cut(image, 0)

    def _after(self, output: Tensor, need: int) -> Tensor:
        sides = self._current.sides
        if sides is not None:
            top, bottom, left, right = (side * self._factor for side in sides)
            self._current.sides = (top, bottom, left, right)
        return self._cut(output, need)

    def _cut(self, x: Tensor, need: int) -> Tensor:
        """Leave at most ``need`` pixels of context on each side; at the canvas' edge there are none."""
        import torch

        sides = self._current.sides
        if sides is None or max(sides) <= need:
            return x
        top, bottom, left, right = (max(0, side - need) for side in sides)
        self._current.sides = (min(sides[0], need), min(sides[1], need), min(sides[2], need), min(sides[3], need))
        height, width = x.shape[-2:]
        return x[..., top : height - bottom, left : width - right].contiguous(memory_format=torch.channels_last)


def _upsampling_modules(decoder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The module with which each upsampling begins, and the one with which its convolution ends."""
    from torch import nn

    if hasattr(decoder, "up_blocks"):
        return [(up, up) for block in decoder.up_blocks for up in block.upsamplers or ()]  # type: ignore[union-attr]  # modules
    layers = list(decoder.layers)  # type: ignore[arg-type]  # a Sequential
    return [(layer, layers[k + 1]) for k, layer in enumerate(layers) if isinstance(layer, nn.Upsample)]


def _needs(factor: int, layers: list[bool]) -> list[int]:
    """Pixels of context that are needed before every layer.

    Followed back exactly from the output of a window, layer by layer: a 3x3 convolution widens it by one pixel, nearest
    upsampling halves its coordinates.
    """
    low, high, window, needs = 0, _PX - 1, _PX, []
    for is_up in reversed(layers):
        if is_up:
            low, high, window = math.floor(low / factor), math.floor(high / factor), window // factor
        else:
            low, high = low - 1, high + 1
        needs.append(max(-low, high - (window - 1)))
    return needs[::-1]


def _layers(vae: Config) -> tuple[int, list[bool]]:
    """Upsampling factor of a decoder, and whether each of its layers is a nearest upsampling: all others are 3x3 convolutions.

    ``AutoencoderKL`` and ``VQModel`` have two convolutions in a residual block, ``AutoencoderTiny`` three in a block.
    """
    convolution, upsampling = [False], [True]
    if vae.get("_class_name") == "AutoencoderTiny":
        blocks = [3 * count * convolution for count in vae.get("num_decoder_blocks", (3, 3, 3, 1))]
        factor, first = int(vae.get("upsampling_scaling_factor", 2)), 1
    else:
        per_block = 2 * (vae.get("layers_per_block", 1) + 1)
        blocks = [per_block * convolution for _ in vae.get("block_out_channels", (64,))]
        factor, first = 2, 5
    layers = first * convolution + blocks[0]
    for block in blocks[1:]:
        layers += [*upsampling, *convolution, *block]
    return factor, layers + convolution
