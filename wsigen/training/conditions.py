"""Class maps and levels of training crops -> what the denoiser is told (`models.inputs`, in batches)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsigen.dataset.drawing import MOST
from wsigen.models.card import BundleCard, Kind
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.inputs import TextInputs, one_hot_maps


def crop_labels(class_maps: Tensor, classes: int) -> Tensor:
    """The class that fills at least half of each crop (`dataset.drawing.MOST`; the lowest index of equals), else -1.

    What nobody labelled takes the class away: a corner that is known says nothing about the rest of a crop.

    Parameters
    ----------
    class_maps : (B, p, p) uint8; values from ``classes`` on are unknown

    Returns
    -------
    (B,) int64
    """
    flat = class_maps.flatten(1)
    votes = torch.stack([(flat == c).sum(dim=1) for c in range(classes)], dim=1)
    most, label = votes.max(dim=1)
    return torch.where(most >= MOST * flat.shape[1], label, torch.full_like(label, -1))


def memory_rows(labels: Tensor, levels: Tensor, classes: int) -> Tensor:
    """Index of (level, class) among levels x classes; -1 for crops without a class."""
    return torch.where(labels >= 0, levels * classes + labels, torch.full_like(labels, -1))


@dataclass(frozen=True, eq=False)
class Conditioner:
    """Turns class maps and levels into the network's inputs.

    Attributes
    ----------
    knows_levels : whether the network has an embedding per level
    prompts : float32 (levels, classes + 1, tokens, width), the last of each level the null prompt (``text`` only)
    parts : side of the window of each level, where a grid is told by tokens
    """

    kind: Kind
    classes: int
    levels: int
    knows_levels: bool = False
    prompts: Tensor | None = None
    parts: tuple[int, ...] = ()

    def __call__(
        self, noisy: Tensor, class_maps: Tensor, levels: Tensor, grids: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the network's sample and keyword arguments for a batch.

        ``grids`` (B, D + 1, p, p) come last in the sample; told by tokens (B, D + 1, S, S) they are ``windows``, with the
        ``levels`` and the ``sides`` (B,) of the part of each window that counts, for the summariser (`denoiser_task.Denoiser`).
        """
        sample, extra = self._of_classes(noisy, class_maps, levels)
        if grids is None:
            return sample, extra
        if self.parts:
            sides = torch.tensor(self.parts, device=levels.device)[levels]
            return sample, {**extra, "windows": grids, "levels": levels, "sides": sides}
        return torch.cat([sample, grids.to(sample)], dim=1), extra

    def _of_classes(self, noisy: Tensor, class_maps: Tensor, levels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        extra = {"class_labels": levels} if self.knows_levels else {}
        if self.kind == "none":
            return noisy, extra
        if self.kind == "class-map":
            return torch.cat([noisy, one_hot_maps(class_maps.clamp(max=self.classes), self.classes).to(noisy)], dim=1), extra
        labels = crop_labels(class_maps, self.classes)
        if self.kind == "class-tokens":
            rows = memory_rows(labels, levels, self.classes)
            return noisy, {"class_labels": torch.where(rows >= 0, rows, torch.full_like(rows, self.levels * self.classes))}
        if self.prompts is None:
            raise ValueError("conditioning 'text' without prompts")
        rows = torch.where(labels >= 0, labels, torch.full_like(labels, self.classes))
        prompts = self.prompts.to(noisy.device)
        return noisy, {**extra, "encoder_hidden_states": prompts[levels, rows].to(noisy)}


@torch.no_grad()
def embed_prompts(card: BundleCard, tokenizer: Any, encoder: Any) -> Tensor:
    """Embed every level's prompts by the very code that `wsigen.generate` uses; see ``Conditioner.prompts``."""
    inputs = TextInputs(card, tokenizer, encoder, False)
    conditions = [*(Condition(label=label) for label in range(len(card.classes))), NULL]
    latents = torch.zeros(len(conditions), 1)
    rows = []
    for level in range(len(card.levels)):
        # `TextInputs` only looks at the shape and type of the latents
        _, extra = inputs(latents[:, :, None, None], conditions, level)
        rows.append(extra["encoder_hidden_states"])
    return torch.stack(rows)
