"""Train a network on batches of crops and count what it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import EvaluationError
from wsigen.dataset.crops import dihedral, jitter_stain
from wsigen.dataset.drawing import PRESENT
from wsigen.evaluation.downstream.networks import Prepared
from wsigen.evaluation.downstream.samples import Samples, Scratch
from wsigen.training.loop import prefetched

TEST_BATCH = 32
WEIGHT_DECAY, WARM_UP = 0.01, 0.2

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images uint8 ``(B, P, P, 3)`` and targets int64: ``(B,)`` classes or ``(B, P, P)`` masks."""


class Batches:
    """Random batches.

    Each crop is drawn for a class, all classes equally often: any crop of that class, or, for masks, any that shows enough
    of it (as a denoiser's training crops are drawn).

    Parameters
    ----------
    parts : list
        Samples and the positions in them that may be drawn.
    size : int
        Crops of a batch.
    """

    def __init__(self, scratch: Scratch, parts: list[tuple[Samples, NDArray[np.int64]]], size: int, seed: int) -> None:
        self._scratch, self._size, self._seed = scratch, size, seed
        rows = np.concatenate([s.rows[i] for s, i in parts])
        self._labels = dict(zip(rows.tolist(), np.concatenate([s.labels[i] for s, i in parts]).tolist(), strict=True))
        shares = np.concatenate([s.shares[i] for s, i in parts])
        by_class = (rows[_drawn_for(shares, k)] for k in range(shares.shape[1]))
        self._by_class = [drawn for drawn in by_class if len(drawn)]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step (>= 0)."""
        crops = [self._crop(np.random.default_rng((self._seed, step, i))) for i in range(self._size)]
        images, targets = zip(*crops, strict=True)
        return np.stack(images), np.stack(targets)

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        rows = self._by_class[int(rng.integers(len(self._by_class)))]
        row = int(rows[rng.integers(len(rows))])
        image = self._scratch.image(row)
        image = jitter_stain(image, rng) if rng.random() < 0.5 else image
        turn = int(rng.integers(8))
        if self._scratch.has_masks:
            return dihedral(image, turn), dihedral(self._scratch.mask(row), turn).astype(np.int64)
        return dihedral(image, turn), np.array(self._labels[row], np.int64)


def _drawn_for(shares: NDArray[np.float64], index: int) -> NDArray[np.bool_]:
    enough = shares[:, index] >= PRESENT
    return enough if enough.any() else shares[:, index] > 0


def fit(
    make: Callable[[], Prepared],
    batches: Batches,
    steps: int,
    seed: int,
    device: str,
    tick: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Train a new network with AdamW, its rate warmed up and lowered as a cosine; the last weights count.

    On one machine the weights are a function of batches, steps and ``seed``.

    Parameters
    ----------
    make : callable
        Builds the network, with random weights from torch's generator.
    tick : callable or None
        Called with the steps done, and all of them.

    Raises
    ------
    EvaluationError
        If the loss is not finite.
    """
    with torch.random.fork_rng(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        torch.manual_seed(seed)
        network = make().to(device).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=network.rate, weight_decay=WEIGHT_DECAY)
        rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_rate(step, steps))
        with closing(prefetched(batches.batch, 0, steps)) as stream:
            for step, (images, targets) in enumerate(stream):
                loss = _loss(network, torch.from_numpy(images).to(device), torch.from_numpy(targets).to(device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                rates.step()
                if tick:
                    tick(step + 1, steps)
        if not torch.isfinite(loss):
            raise EvaluationError(
                f"the loss became {float(loss)} in {steps} steps; another --network or smaller --epochs helps"
            )
    return network.eval()


def share_of_rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: it rises over the first ``WARM_UP`` of the steps and falls as a cosine to 0."""
    warm = max(1.0, WARM_UP * steps)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _loss(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of crops, or of the labelled pixels in them (flat: that of pictures is not repeatable on a GPU)."""
    logits = network(images)
    if logits.dim() == 4:
        logits = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    return functional.cross_entropy(logits, targets.reshape(-1), ignore_index=UNKNOWN)


def confusion(
    network: nn.Module, scratch: Scratch, samples: Samples, chosen: NDArray[np.int64], classes: int, device: str
) -> NDArray[np.int64]:
    """Count predictions on some samples: int64 ``(classes, classes)`` (true, predicted) of crops or labelled pixels."""
    total = np.zeros((classes, classes), np.int64)
    for start in range(0, len(chosen), TEST_BATCH):
        part = chosen[start : start + TEST_BATCH]
        images = np.stack([scratch.image(int(r)) for r in samples.rows[part]])
        with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            predicted = network(torch.from_numpy(images).to(device)).argmax(1).cpu().numpy()
        true = np.stack([scratch.mask(int(r)) for r in samples.rows[part]]) if scratch.has_masks else samples.labels[part]
        known = true != UNKNOWN
        pairs = true[known].astype(np.int64) * classes + predicted[known]
        total += np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)
    return total
