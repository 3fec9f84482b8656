"""A decoder cut at its one attention: the layers before it, itself, and the costly ones after it, which are local.

Stable Diffusion's autoencoder has one self-attention, in the middle block, at the resolution of latents. Attention has no
radius: what a pixel becomes depends on the whole picture that is decoded at once. Decoded window by window as a whole, every
block would decode all windows that touch it, 4 times its area; cut here, only the attention is computed on overlapping
windows, and what takes nine tenths of the work runs once::

    x = r0(conv_in(z))                                    local
    a = sum_w weight_w (x + attention(x in window w))     per window, blended
    image = conv_out(up_blocks(r1(a)))                    local

The windows are a lattice that depends on the canvas alone; where they overlap, features are blended by Hann weights that add up
to one, so that every block that needs a feature computes the same one. Of a window only the cells that a block needs are
queries (`CELL`). Norms must be frozen meanwhile: a window's own statistics would make the first and the last step depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.models.halo import BEFORE_ATTENTION
from wsigen.sampling.plan import lattice_starts

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE = 128
"""Side of a window in latent px, or the canvas' where that is smaller."""

OVERLAP = 32
"""Overlap of windows in latent px."""

CELL = 32
"""Side of the squares of a window, in latent px, that are queries together: each whole and for itself, so that shapes and
therefore bits do not depend on who needs them."""

PART = 256
"""Side of what shares its features, in latent px: a block of 2048 px. With its context it bounds the features held at once."""


@dataclass(frozen=True)
class AttentionWindow:
    """A window of the lattice.

    Attributes
    ----------
    box : Box
        On the canvas, latent px.
    weight : ndarray
        float32 ``(h, w)``; over all windows they add up to one at every pixel.
    around : Box
        The box with the context that the layers before the attention need, as far as the canvas goes.
    cells : list of Box
        The squares of it that are needed, on the canvas.
    """

    box: Box
    weight: NDArray[np.float32]
    around: Box
    cells: list[Box]


def attention_windows(canvas: Box, needed: Sequence[Box]) -> list[AttentionWindow]:
    """The windows that have a part in the features of ``needed`` boxes, row-major."""
    hull = reduce(Box.union, needed)
    windows = []
    for y, rows in _axis(canvas.height):
        if y >= hull.y1 or y + len(rows) <= hull.y0:
            continue
        for x, columns in _axis(canvas.width):
            if x >= hull.x1 or x + len(columns) <= hull.x0:
                continue
            box = Box(y, x, y + len(rows), x + len(columns))
            if cells := [cell for cell in _cells(box) if any(cell.overlaps(other) for other in needed)]:
                around = box.dilate(BEFORE_ATTENTION).intersect(canvas)
                windows.append(AttentionWindow(box, np.outer(rows, columns), around, cells))
    return windows


@dataclass(frozen=True)
class Features:
    """What the layers after the attention start from: ``values``, ``(1, C, h, w)``, of ``box``, on the model's device.

    Where no needed box lies they are not finished.
    """

    box: Box
    values: Tensor

    def part(self, box: Box) -> Tensor:
        """Those of a box that was needed."""
        import torch

        rows, columns = box.relative_to(self.box).slices
        return self.values[..., rows, columns].contiguous(memory_format=torch.channels_last)

    def add(self, box: Box, values: Tensor) -> None:
        """Add the values ``(C, h, w)`` of ``box``, as far as it lies inside."""
        inner = box.intersect(self.box)
        rows, columns = inner.relative_to(box).slices
        ys, xs = inner.relative_to(self.box).slices
        self.values[..., ys, xs] += values[..., rows, columns]


class SplitDecoder:
    """The parts of a decoder whose only attention is the one of its middle block.

    Parameters
    ----------
    vae : AutoencoderKL or VQModel
        One for which `can_split` holds.
    """

    def __init__(self, vae: Any) -> None:
        self._vae, self._decoder = vae, vae.decoder
        self._first, self._last = vae.decoder.mid_block.resnets
        (self._attention,) = vae.decoder.mid_block.attentions

    def features(self, read: Callable[[Box], Tensor], canvas: Box, needed: Sequence[Box]) -> Features:
        """Compute what ``needed`` boxes of the canvas are decoded from, window by window.

        Parameters
        ----------
        read : callable
            Gives the latents of a box, ``(1, C, h, w)``, as the autoencoder takes them.
        canvas : Box
            Latent px.
        needed : sequence of Box
            At least one.
        """
        import torch

        hull = reduce(Box.union, needed)
        features: Features | None = None
        for window in attention_windows(canvas, needed):
            x = self._before(read(window.around), window)
            if features is None:
                empty = x.new_zeros((1, x.shape[1], *hull.shape)).contiguous(memory_format=torch.channels_last)
                features = Features(hull, empty)
            self._blend(features, window, x)
        if features is None:
            raise ValueError("features of no box that lies on the canvas")
        return features

    def decode(self, features: Tensor) -> Tensor:
        """Run the layers after the attention."""
        decoder, x = self._decoder, self._last(features, None)
        for block in decoder.up_blocks:
            x = block(x)
        image: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return image

    def _before(self, latents: Tensor, window: AttentionWindow) -> Tensor:
        """Run the layers before the attention, and cut their context off."""
        import torch

        if hasattr(self._vae, "quantize"):
            latents = self._vae.quantize(latents)[0]
        first = self._vae.post_quant_conv
        x: Tensor = self._decoder.conv_in(latents if first is None else first(latents))
        rows, columns = window.box.relative_to(window.around).slices
        return self._first(x, None)[..., rows, columns].contiguous(memory_format=torch.channels_last)

    def _blend(self, features: Features, window: AttentionWindow, x: Tensor) -> None:
        """Add the window's share of its needed cells."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        attention = self._attention
        tokens = x.flatten(2)
        normed = (tokens if attention.group_norm is None else attention.group_norm(tokens)).transpose(1, 2)
        query, key, value = (self._heads(layer(normed)) for layer in (attention.to_q, attention.to_k, attention.to_v))
        grid = query.unflatten(2, x.shape[-2:])
        weight = torch.from_numpy(window.weight).to(x.device)
        for cell in window.cells:
            ys, xs = cell.relative_to(window.box).slices
            (heads,) = scaled_dot_product_attention(grid[:, :, ys, xs].flatten(2, 3), key, value)
            attended = attention.to_out[0](heads.transpose(0, 1).flatten(1)).T.unflatten(1, cell.shape)
            features.add(cell, (attended + x[..., ys, xs]) / attention.rescale_output_factor * weight[ys, xs])

    def _heads(self, tokens: Tensor) -> Tensor:
        """``(1, N, C)`` as ``(1, heads, N, C / heads)``."""
        return tokens.unflatten(2, (self._attention.heads, -1)).transpose(1, 2)


def can_split(vae: Any) -> bool:
    """Whether a decoder has no attention but a plain one in its middle block, and the layers that `SplitDecoder` runs."""
    decoder = vae.decoder
    if type(vae).__name__ not in ("AutoencoderKL", "VQModel") or type(decoder).__name__ != "Decoder":
        return False
    middle = decoder.mid_block
    if len(middle.resnets) != 2 or len(middle.attentions) != 1 or attentions(decoder) != [middle.attentions[0]]:
        return False
    attention = middle.attentions[0]
    extras = ("spatial_norm", "norm_q", "norm_k", "norm_cross", "add_k_proj")
    return bool(attention.residual_connection) and not any(getattr(attention, extra, None) for extra in extras)


def attentions(decoder: nn.Module) -> list[nn.Module]:
    """The attention layers of a decoder."""
    return [module for module in decoder.modules() if "Attention" in type(module).__name__]


@lru_cache(maxsize=8)
def _axis(extent: int) -> list[tuple[int, NDArray[np.float32]]]:
    """First pixel and weights of every window along an axis of ``extent`` px, which add up to one at every pixel."""
    side = min(SIDE, extent)
    starts = lattice_starts(extent, side, side - min(OVERLAP, side // 2))
    hann = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(extent)
    for start in starts:
        total[start : start + side] += hann
    return [(start, (hann / total[start : start + side]).astype(np.float32)) for start in starts]


def _cells(box: Box) -> list[Box]:
    return [
        Box(y, x, y + CELL, x + CELL).intersect(box) for y in range(box.y0, box.y1, CELL) for x in range(box.x0, box.x1, CELL)
    ]
