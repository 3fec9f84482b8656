"""A decoder cut at its one attention: the layers before it, itself, and the costly ones after it, which are local.

Stable Diffusion's autoencoder has one self-attention, in the middle block, at the resolution of latents. Decoded window
by window as a whole it made every block decode all windows that touch it, 4 times its area; cut here, only the attention
is computed on overlapping windows (`models.attention_windows`), and what takes nine tenths of the work runs once::

    x = r0(conv_in(z))                                    local
    a = sum_w weight_w (x + attention(x in window w))     per window, blended
    image = conv_out(up_blocks(r1(a)))                    local

Norms must be frozen meanwhile: a window's own statistics would make the first and the last step depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.geometry import Box
from wsigen.models.attention_windows import AttentionWindow, attention_windows, hull_of


@dataclass(frozen=True)
class Features:
    """What the layers after the attention start from: ``values [1, C, h, w]`` of ``box``, on the model's device.

    Where no box was asked for they are not finished.
    """

    box: Box
    values: Tensor

    def part(self, box: Box) -> Tensor:
        """Those of a box that was asked for."""
        rows, columns = box.relative_to(self.box).slices
        return self.values[..., rows, columns].contiguous(memory_format=torch.channels_last)

    def add(self, box: Box, values: Tensor) -> None:
        """Add what lies inside."""
        inner = box.intersect(self.box)
        rows, columns = inner.relative_to(box).slices
        ys, xs = inner.relative_to(self.box).slices
        self.values[..., ys, xs] += values[..., rows, columns]


class SplitDecoder:
    """The parts of a decoder whose only attention is the one of its middle block.

    Parameters
    ----------
    vae:
        An ``AutoencoderKL`` for which `can_split` holds.
    """

    def __init__(self, vae: Any) -> None:
        self._vae, self._decoder = vae, vae.decoder
        self._first, self._last = vae.decoder.mid_block.resnets
        (self._attention,) = vae.decoder.mid_block.attentions

    def features(self, read: Callable[[Box], Tensor], canvas: Box, needed: Sequence[Box]) -> Features:
        """Compute what ``needed`` boxes of the canvas are decoded from, window by window.

        Parameters
        ----------
        read:
            Gives the latents of a box, ``[1, C, h, w]`` as the autoencoder takes them.
        """
        hull = hull_of(needed)
        found: Features | None = None
        for window in attention_windows(canvas, needed):
            x = self._before(read(window.around), window)
            if found is None:
                empty = x.new_zeros((1, x.shape[1], *hull.shape)).contiguous(memory_format=torch.channels_last)
                found = Features(hull, empty)
            self._blend(found, window, x)
        if found is None:
            raise ValueError("features of no box that lies on the canvas")
        return found

    def decode(self, features: Tensor) -> Tensor:
        """Run the layers after the attention."""
        decoder, x = self._decoder, self._last(features, None)
        for block in decoder.up_blocks:
            x = block(x)
        image: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return image

    def _before(self, latents: Tensor, window: AttentionWindow) -> Tensor:
        """Run the layers before the attention, and cut their context off."""
        given = self._vae.post_quant_conv
        x: Tensor = self._decoder.conv_in(latents if given is None else given(latents))
        rows, columns = window.box.relative_to(window.around).slices
        return self._first(x, None)[..., rows, columns].contiguous(memory_format=torch.channels_last)

    def _blend(self, found: Features, window: AttentionWindow, x: Tensor) -> None:
        """Add the window's share of its needed cells."""
        attention = self._attention
        tokens = x.flatten(2)
        normed = (tokens if attention.group_norm is None else attention.group_norm(tokens)).transpose(1, 2)
        query, key, value = (self._heads(layer(normed)) for layer in (attention.to_q, attention.to_k, attention.to_v))
        grid = query.unflatten(2, x.shape[-2:])
        weight = torch.from_numpy(window.weight).to(x.device)
        for cell in window.cells:
            ys, xs = cell.relative_to(window.box).slices
            asked = grid[:, :, ys, xs].flatten(2, 3)
            (answer,) = functional.scaled_dot_product_attention(asked, key, value)
            told = attention.to_out[0](answer.transpose(0, 1).flatten(1)).T.unflatten(1, cell.shape)
            found.add(cell, (told + x[..., ys, xs]) / attention.rescale_output_factor * weight[ys, xs])

    def _heads(self, tokens: Tensor) -> Tensor:
        """``[1, N, C]`` as ``[1, heads, N, C / heads]``."""
        return tokens.unflatten(2, (self._attention.heads, -1)).transpose(1, 2)


def can_split(vae: Any) -> bool:
    """Whether a decoder has no attention but a plain one in its middle block, and the layers that `SplitDecoder` runs."""
    decoder = vae.decoder
    if type(vae).__name__ != "AutoencoderKL" or type(decoder).__name__ != "Decoder":
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
