"""Train a network on batches and count what it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import EvaluationError
from wsigen.evaluation.downstream.batches import Batches
from wsigen.evaluation.downstream.networks import Prepared
from wsigen.evaluation.downstream.samples import Samples
from wsigen.evaluation.downstream.scratch import Scratch
from wsigen.training.prefetch import prefetched

TEST_BATCH = 32
WEIGHT_DECAY, WARM_UP = 0.01, 0.2


def fit(
    make: Callable[[], Prepared],
    batches: Batches,
    steps: int,
    seed: int,
    device: str,
    tick: Callable[[int], None] | None = None,
) -> Prepared:
    """Train a new network with AdamW, its rate warmed up and lowered as a cosine; the last weights count.

    On one machine the weights are a function of batches, steps and ``seed``.

    Parameters
    ----------
    make:
        Builds the network, with random weights from torch's generator.
    tick:
        Called with the steps done.

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
        with prefetched(batches.batch, 0, steps) as stream:
            for step, (images, targets) in enumerate(stream):
                loss = _loss(network, torch.from_numpy(images).to(device), torch.from_numpy(targets).to(device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                rates.step()
                if tick:
                    tick(step + 1)
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
    """Count predictions on some samples: int64 ``[classes, classes]`` (true, predicted) of crops or labelled pixels."""
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
