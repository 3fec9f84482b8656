"""``embedded``: the encoder of a bundle's autoencoder, for evaluation without any network.

A small network trained on one dataset to reproduce pixels: it sees stain, texture and nuclei, and knows nothing of
diagnoses. Its numbers rank slides against each other and compare with no published FID.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsigen.base.errors import EvaluationError
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.models.extractors.torch_module import TorchExtractor, ready
from wsigen.models.loading import check_network

SIDE_PX = 128
"""It takes pictures of any size; of smaller ones its coarsest block sees little."""


def open_embedded(bundle: str, device: str) -> TorchExtractor:
    """Load the encoder of a bundle (``default``, a folder or a hub id).

    Raises
    ------
    BundleError, EvaluationError
        If there is no such bundle or its autoencoder has no blocks to look at.
    """
    folder = find_bundle(bundle)
    card = check_bundle(folder)
    vae = check_network(folder / "vae").from_pretrained(
        str(folder / "vae"), use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
    )
    encoder: Any = ready(vae.encoder, device)
    blocks = [*getattr(encoder, "down_blocks", [])]
    if not blocks:
        raise EvaluationError(f"{folder}: its autoencoder has no encoder blocks; use another extractor")
    low, high = card.latent.image_range

    def run(pictures: Tensor) -> Tensor:
        parts: list[Tensor] = []
        x = encoder.conv_in(pictures * (high - low) + low)
        for block in blocks:
            x = block(x)
            parts += _pooled(x)
        return torch.cat(parts, dim=1)

    version = f"encoder of {card.name}, mean and deviation of {len(blocks)} blocks, v1"
    return TorchExtractor("embedded", version, encoder, run, device, SIDE_PX)


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over space of channels that are normalised at every place, as LPIPS does (Zhang et al. 2018).

    Times the root of the channels, so that a component is of order 1 in every block.
    """
    unit = x * (x.shape[1] ** 0.5) / (x.square().sum(1, keepdim=True).sqrt() + 1e-6)
    return unit.mean((2, 3)), unit.std((2, 3))
