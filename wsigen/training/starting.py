"""Beginning at another network: its inputs and embeddings made to fit the classes and levels of the dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsigen.base.errors import BundleError, TrainingError
from wsigen.models.card import BundleCard, Level, read_card

CARD = "wsigen.yaml"


def embeddings(card: BundleCard) -> int | None:
    """Rows of the network's class embedding: tokens, or levels where the network is told the level besides."""
    kind = card.conditioning.kind
    if kind == "class-tokens":
        return len(card.levels) * len(card.classes) + 1
    return None if kind == "text" else len(card.levels)


def input_channels(card: BundleCard) -> int:
    """Channels of the network's sample: the latents and, for class maps, ``[classes..., unknown]``."""
    return card.latent.channels + (len(card.classes) + 1 if card.conditioning.kind == "class-map" else 0)


def card_of(start: Path | None) -> BundleCard | None:
    """The card of the bundle training begins at; None where it begins at nothing, or at a plain diffusers folder."""
    return read_card(start) if start is not None and (start / CARD).is_file() else None


def scale_card(start: Path) -> BundleCard | None:
    """The card that says which latents the network of ``start`` knows; None where the folder is not a whole model.

    A plain diffusers folder gets the one `wsigen.generate` derives: ``z = (encode(x) - shift_factor) * scaling_factor``.
    """
    try:
        return read_card(start)
    except BundleError:
        return None


def latent_scale_of(start: BundleCard | None, vae: nn.Module, vae_of_start: nn.Module | None) -> NDArray[np.float32] | None:
    """Mean and deviation (2, C) that the network's latents were standardised with, if they come from the same autoencoder.

    The autoencoders are compared as float16, as which bundles may store them.
    """
    if start is None or vae_of_start is None:
        return None
    one, other = vae.state_dict(), vae_of_start.state_dict()
    if one.keys() != other.keys() or not all(_equal(one[k], other[k]) for k in one):
        return None
    return np.array([start.latent.mean, start.latent.std], np.float32)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.half().cpu(), b.half().cpu())


def fit(unet: Any, card: BundleCard, start: BundleCard | None, folder: Path) -> None:
    """Make a network's inputs and embeddings those of ``card``, in place.

    Classes and levels that its own card ``start`` names too keep what they had learnt, wherever they stood; new classes
    begin as "unknown", new levels as the one nearest in um/px. Without a card, new inputs begin at weight 0.

    Raises
    ------
    TrainingError
        If the network sees neither the latents alone nor these and a class map that can be fitted.
    """
    if start is not None and start.conditioning.kind != card.conditioning.kind:
        start = None
    _fit_inputs(unet, card, start, folder)
    _fit_embeddings(unet, card, start)


@torch.no_grad()
def _fit_inputs(unet: Any, card: BundleCard, start: BundleCard | None, folder: Path) -> None:
    old, latent, channels = unet.conv_in, card.latent.channels, input_channels(card)
    mapped = channels > latent
    if mapped and start is not None and old.in_channels == input_channels(start):
        sources = [latent + i for i in [*_classes_in(card, start), len(start.classes)]]
    elif old.in_channels == channels:
        return
    elif old.in_channels == latent:
        sources = []
    else:
        raise TrainingError(f"{folder}: its network sees {old.in_channels} channels; {latent} or {channels} are needed")
    new: Any = nn.Conv2d(channels, old.out_channels, old.kernel_size, padding=old.padding)
    new.weight.zero_()
    new.weight[:, :latent] = old.weight[:, :latent]
    if sources:
        new.weight[:, latent:] = old.weight[:, sources]
    new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=channels)


@torch.no_grad()
def _fit_embeddings(unet: Any, card: BundleCard, start: BundleCard | None) -> None:
    rows = embeddings(card)
    if rows is None:
        return
    sources = None
    if start is not None and unet.config["num_class_embeds"] == embeddings(start):
        sources = _rows_in(card, start)
    elif unet.config["num_class_embeds"] == rows:
        return
    new = nn.Embedding(rows, unet.config["block_out_channels"][0] * 4)
    if sources is None:
        new.weight.zero_()  # added to the time embedding: begins as the network was
    else:
        new.weight.copy_(unet.class_embedding.weight[sources])
    unet.class_embedding = new
    unet.register_to_config(num_class_embeds=rows)


def _rows_in(card: BundleCard, start: BundleCard) -> list[int]:
    """For every row of the embedding, the one of the start's embedding it begins as."""
    levels = [_nearest(level, i, start.levels) for i, level in enumerate(card.levels)]
    if card.conditioning.kind != "class-tokens":
        return levels
    count, null = len(start.classes), len(start.levels) * len(start.classes)
    tokens = [level * count + label if label < count else null for level in levels for label in _classes_in(card, start)]
    return [*tokens, null]


def _classes_in(card: BundleCard, start: BundleCard) -> list[int]:
    """Index of every class of ``card`` among those of ``start``, by name; their number for one it does not have."""
    known = {c.name.casefold(): i for i, c in enumerate(start.classes)}
    return [known.get(c.name.casefold(), len(start.classes)) for c in card.classes]


def _nearest(level: Level, index: int, levels: Sequence[Level]) -> int:
    if level.mpp is None or any(other.mpp is None for other in levels):
        return min(index, len(levels) - 1)
    away = [abs(math.log(level.mpp / other.mpp)) for other in levels if other.mpp is not None]
    return int(np.argmin(away))
