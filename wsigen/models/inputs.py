"""How conditions reach a network.

One class for each way: channels beside the latents, tokens (an embedding of the network's own), prompts through a text encoder.
Each turns latents and conditions into a `Call`: the network's sample, and keyword arguments beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wsigen.base.classes import UNKNOWN
from wsigen.models.card import BundleCard, GridCondition
from wsigen.models.conditioning import Condition
from wsigen.models.denoisers import Architecture
from wsigen.models.loading import load_text
from wsigen.models.network_config import read_text_encoder
from wsigen.models.summariser import Summariser, load_summariser, summarise

Call = tuple[Tensor, dict[str, Any]]
"""The sample ``(B, channels, p, p)`` and the keyword arguments of a network."""


class Inputs(Protocol):
    """Turns latents ``(B, C, p, p)`` and B conditions into what the network is called with."""

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return the call for a batch at a magnification level of the card."""
        ...


def make_inputs(folder: Path, card: BundleCard, network: Architecture, device: str) -> Inputs:
    """Choose how the conditions of a bundle reach its network, by the kind that its card names."""
    inputs = _class_inputs(folder, card, network, device)
    if card.grid is None:
        return inputs
    if card.grid.told == "channels":
        return GridInputs(inputs, card.grid.channels)
    return GridTokenInputs(inputs, load_summariser(folder, device), card.grid)


def _class_inputs(folder: Path, card: BundleCard, network: Architecture, device: str) -> Inputs:
    knows_levels = network.embeds is not None
    kind = card.conditioning.kind
    if kind == "class-map":
        return ClassMapInputs(card, knows_levels)
    if kind == "class-tokens":
        return TokenInputs(card)
    if kind == "text":
        return TextInputs(card, *load_text(folder, device), knows_levels, read_text_encoder(folder)[1].most)
    return PlainInputs(card, knows_levels)


class PlainInputs:
    """Latents alone, and the level where the network knows levels (``class_labels``)."""

    def __init__(self, card: BundleCard, knows_levels: bool) -> None:
        self.card = card
        self.knows_levels = knows_levels

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return the latents and the level."""
        if not self.knows_levels:
            return latents, {}
        return latents, {"class_labels": torch.full((len(latents),), level, device=latents.device)}


class GridInputs:
    """The grid as channels behind whatever else the network is told; null, and a grid that nobody gave, = 0 everywhere."""

    def __init__(self, inputs: Inputs, channels: int) -> None:
        self.inputs, self.channels = inputs, channels

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return latents, their class conditions and grids ``(B, ... + D + 1, p, p)``, and what goes beside them."""
        sample, extra = self.inputs(latents, conditions, level)
        shape = (self.channels, *latents.shape[-2:])
        grids = np.stack([np.zeros(shape, np.float32) if c.grid is None else c.grid for c in conditions])
        return torch.cat([sample, torch.from_numpy(grids).to(sample)], dim=1), extra


class GridTokenInputs:
    """A window of the grid as tokens, behind those of a prompt if there is one; null, and an unknown grid, = zeros."""

    def __init__(self, inputs: Inputs, summariser: Summariser, grid: GridCondition) -> None:
        self.inputs, self.summariser, self.grid = inputs, summariser, grid

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return latents and class conditions as they are, and tokens ``(B, T, C)`` beside them."""
        sample, extra = self.inputs(latents, conditions, level)
        shape = (self.grid.numbers + 1, *(self.grid.parts[level],) * 2)
        windows = np.stack([np.zeros(shape, np.float32) if c.grid is None else c.grid for c in conditions])
        levels = torch.full((len(windows),), level, device=latents.device)
        with torch.autocast(latents.device.type, enabled=False):
            tokens = summarise(self.summariser, torch.from_numpy(windows).to(latents.device), levels)
        return sample, with_tokens(extra, tokens.to(latents))


def with_tokens(extra: dict[str, Any], tokens: Tensor) -> dict[str, Any]:
    """Keyword arguments of a network that attends to ``tokens`` besides those of a prompt."""
    prompt, mask = extra.get("encoder_hidden_states"), extra.get("encoder_attention_mask")
    both = tokens if prompt is None else torch.cat([prompt, tokens], dim=1)
    if mask is None:
        return {**extra, "encoder_hidden_states": both}
    seen = torch.cat([mask, mask.new_ones(tokens.shape[:2])], dim=1)
    return {**extra, "encoder_hidden_states": both, "encoder_attention_mask": seen}


class ClassMapInputs(PlainInputs):
    """The class map as one-hot channels ``[classes..., unknown]`` behind the latents; null = all unknown."""

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return latents and maps ``(B, C + classes + 1, p, p)``, and the level."""
        _, extra = super().__call__(latents, conditions, level)
        maps = np.stack([self._labels(c, tuple(latents.shape[-2:])) for c in conditions])
        one_hot = one_hot_maps(torch.from_numpy(maps).to(latents.device), len(self.card.classes))
        return torch.cat([latents, one_hot.to(latents.dtype)], dim=1), extra

    def _labels(self, condition: Condition, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
        unknown = len(self.card.classes)
        if condition.class_map is None:
            return np.full(shape, unknown if condition.label is None else condition.label, dtype=np.int64)
        labels = np.where(condition.class_map == UNKNOWN, unknown, condition.class_map).astype(np.int64)
        if labels.shape != shape or labels.max() > unknown:
            actual = f"class map of shape {labels.shape} with values up to {labels.max()}"
            raise ValueError(f"{actual}: expected {shape} and {unknown} classes")
        return labels


def one_hot_maps(class_maps: Tensor, classes: int) -> Tensor:
    """Class maps ``(B, p, p)``, unknown being ``classes``, as bool ``(B, classes + 1, p, p)``."""
    channels = torch.arange(classes + 1, device=class_maps.device)
    return class_maps[:, None] == channels[None, :, None, None]


class TokenInputs:
    """One token per (level, class): index ``level * n_classes + class``; the last index is the null token."""

    def __init__(self, card: BundleCard) -> None:
        self.card = card

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return the latents and the tokens ``(B,)``."""
        tokens = [self._token(_label(c, self.card), level) for c in conditions]
        return latents, {"class_labels": torch.tensor(tokens, device=latents.device)}

    def _token(self, label: int | None, level: int) -> int:
        classes = len(self.card.classes)
        return len(self.card.levels) * classes if label is None else level * classes + label


class TextInputs:
    """Prompts such as "Tumor, patch" through CLIP or T5, each encoded once; null = the negative prompt.

    CLIP's tokens are taken with those that fill the prompt up, as Stable Diffusion was trained. T5's (``most``) end with the
    prompt, in lower case, and the network is told which they are, as PixArt was trained.
    """

    def __init__(self, card: BundleCard, tokenizer: Any, encoder: Any, knows_levels: bool, most: int | None = None) -> None:
        self.card, self.tokenizer, self.encoder = card, tokenizer, encoder
        self._plain, self._most = PlainInputs(card, knows_levels), most
        self._known: dict[str, tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()

    def prompt(self, label: int | None, level: int) -> str:
        """The words for a class at a level."""
        conditioning = self.card.conditioning
        words = conditioning.negative_prompt if label is None else conditioning.prompt
        if label is not None:
            words = words.replace("{class}", self.card.classes[label].name)
        return words.replace("{level}", self.card.levels[level].name)

    def __call__(self, latents: Tensor, conditions: Sequence[Condition], level: int) -> Call:
        """Return the latents and the embedded prompts ``(B, tokens, width)``, with T5 also which tokens count."""
        _, extra = self._plain(latents, conditions, level)
        rows = [self._embed(self.prompt(_label(c, self.card), level)) for c in conditions]
        told = {**extra, "encoder_hidden_states": torch.stack([tokens for tokens, _ in rows]).to(latents)}
        return latents, told if self._most is None else told | {"encoder_attention_mask": torch.stack([m for _, m in rows])}

    def _embed(self, prompt: str) -> tuple[Tensor, Tensor]:
        with self._lock:
            if prompt not in self._known:
                length = min(self.tokenizer.model_max_length, self._most or self.encoder.config.max_position_embeddings)
                words = prompt if self._most is None else prompt.lower().strip()
                told = self.tokenizer(words, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
                device = self.encoder.device
                ids, mask = told.input_ids.to(device), told.attention_mask.to(device)
                with torch.autocast(device.type, enabled=False):
                    tokens = self.encoder(ids, attention_mask=None if self._most is None else mask)[0][0]
                self._known[prompt] = (tokens, mask[0])
            return self._known[prompt]


def _label(condition: Condition, card: BundleCard) -> int | None:
    """The class of a condition that speaks of a whole crop."""
    if condition.class_map is not None:
        raise ValueError(f"conditioning '{card.conditioning.kind}' takes one class per crop, not a class map")
    if condition.label is not None and not 0 <= condition.label < len(card.classes):
        raise ValueError(f"class index {condition.label}: the bundle has {len(card.classes)} classes")
    return condition.label
