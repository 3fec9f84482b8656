"""`Batches`: crops to learn from, balanced by class, turned and jittered; a pure function of (seed, step)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.dataset.crops import dihedral, jitter_stain
from wsigen.dataset.drawing import PRESENT
from wsigen.evaluation.downstream.samples import Samples
from wsigen.evaluation.downstream.scratch import Scratch

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images uint8 ``[B, P, P, 3]`` and targets int64: ``[B]`` classes or ``[B, P, P]`` masks."""


class Batches:
    """Random batches.

    Each crop is drawn for a class, all classes equally often: any crop of that class, or, for masks, any that shows enough
    of it (as a denoiser's training crops are drawn).

    Parameters
    ----------
    parts:
        Samples and the positions in them that may be drawn.
    size:
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
