"""How far a pixel of the decoder looks: from the block counts of its config."""

from __future__ import annotations

import math

from wsigen.models.configs import Config

EFFECTIVE_HALO = 16
"""Most latent px of context worth decoding: the theoretical radius counts corners of vanishing weight."""

_UP = "up"
_CONV = "conv"


def decoder_radius(vae: Config) -> int:
    """Latent px around a window on which its decoded pixels depend, if the decoder has no attention.

    Followed back exactly from the output of a window, layer by layer: a 3x3 convolution widens it by one
    pixel, nearest upsampling halves its coordinates.
    """
    tiny = vae.get("_class_name") == "AutoencoderTiny"
    factor, layers = _tiny_layers(vae) if tiny else _kl_layers(vae)
    low, high = 0, 2**10 - 1  # the pixels of 2**10 / f**n latents, aligned
    for layer in reversed(layers):
        if layer == _CONV:
            low, high = low - 1, high + 1
        else:
            low, high = math.floor(low / factor), math.floor(high / factor)
    window = 2**10 // factor ** layers.count(_UP)
    return max(-low, high - (window - 1))


def _kl_layers(vae: Config) -> tuple[int, list[str]]:
    """Upsampling factor and layers of ``AutoencoderKL``'s decoder (two convolutions a residual block)."""
    blocks, per_block = len(vae.get("block_out_channels", (64,))), vae.get("layers_per_block", 1)
    layers = [_CONV] * (1 + 4)
    for block in range(blocks):
        layers += [_CONV] * (2 * (per_block + 1))
        if block < blocks - 1:
            layers += [_UP, _CONV]
    return 2, [*layers, _CONV]


def _tiny_layers(vae: Config) -> tuple[int, list[str]]:
    """Upsampling factor and layers of ``AutoencoderTiny``'s decoder (three convolutions in each block)."""
    counts = vae.get("num_decoder_blocks", (3, 3, 3, 1))
    layers = [_CONV]
    for block, count in enumerate(counts):
        layers += [_CONV] * (3 * count)
        layers += [_UP, _CONV] if block < len(counts) - 1 else [_CONV]
    return int(vae.get("upsampling_scaling_factor", 2)), layers
