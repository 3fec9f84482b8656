"""PathUp's feature entropy loss: crops of one prompt alike inside the U-Net, crops of different prompts not.

Eq. 3 of the paper, with z = e(x_t, c_s) the output of the U-Net's middle block and k the memory of K = classes x levels
vectors::

    L_e = E[ -log( exp(z . k+ / tau) / sum_i exp(z . k_i / tau) ) ],      L = L_r + beta L_e,   beta = 0.1

What the paper leaves open, and what is done here:

* *From a map of features to one vector*: the mean over the middle block's pixels.
* *Lengths*: z and k are scaled to length 1, as in the contrastive methods the paper follows (MoCo), else the product grows
  without bound.
* *tau*: not given; 0.07, MoCo's value.
* *Update*: printed as k_{n+1} = alpha k_{n-1} + (1 - alpha) k_n, in which no image occurs, yet described as "a moving
  average of image embeddings", "after each training step". Read as k <- alpha k + (1 - alpha) mean(z of this prompt),
  only for prompts of the step, then scaled to length 1. alpha is not given; 0.99.
* *The sum over i = 0..K* is taken over all K vectors, the positive one among them.
* *Crops without a prompt* (null condition) have no positive vector and take no part.

"K vectors, randomly initialised" is the paper's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FeatureMemory(nn.Module):
    """K unit vectors of D features, one per (level, class): row ``level * classes + class``. No gradient reaches them."""

    vectors: Tensor

    def __init__(self, rows: int, width: int, decay: float, seed: int) -> None:
        super().__init__()
        self.decay = decay
        start = torch.randn((rows, width), generator=torch.Generator().manual_seed(seed))
        self.register_buffer("vectors", functional.normalize(start, dim=1))

    @torch.no_grad()
    def update(self, features: Tensor, rows: Tensor) -> None:
        """Move the rows that occur towards the mean of their features.

        Parameters
        ----------
        features : (B, D) as `pooled` gives them
        rows : (B,) int64; -1 takes no part
        """
        member = functional.one_hot(rows.clamp(min=0), len(self.vectors)).to(self.vectors) * (rows >= 0)[:, None]
        counts = member.sum(dim=0)[:, None]
        mean = member.T @ functional.normalize(features.to(self.vectors), dim=1) / counts.clamp(min=1)
        moved = functional.normalize(self.decay * self.vectors + (1 - self.decay) * mean, dim=1)
        self.vectors.copy_(torch.where(counts > 0, moved, self.vectors))


def pooled(feature_map: Tensor) -> Tensor:
    """Mean over the pixels of the middle block's output: (B, D, h, w) -> (B, D) float32."""
    return feature_map.float().mean(dim=(2, 3))


def feature_entropy(features: Tensor, rows: Tensor, memory: Tensor, temperature: float) -> Tensor:
    """Eq. 3: cross-entropy of the features against the memory.

    Parameters
    ----------
    features : (B, D)
    rows : (B,) int64, the memory's row of each crop's prompt; -1 (null condition) takes no part
    memory : (K, D) unit vectors

    Returns
    -------
    the mean over the crops that have a prompt; 0, with a gradient of 0, if none has
    """
    logits = functional.normalize(features, dim=1) @ memory.detach().T / temperature
    known = rows >= 0
    losses = functional.cross_entropy(logits, rows.clamp(min=0), reduction="none")
    return torch.where(known, losses, torch.zeros_like(losses)).sum() / known.sum().clamp(min=1)
