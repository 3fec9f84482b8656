"""The running mean of a network's weights (EMA): what is sampled and published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Running mean ``a <- d a + (1 - d) w`` of all trained parameters.

    ``d`` begins at 0.1 and rises to ``decay`` with the steps, ``min(decay, (1 + n) / (10 + n))``, so that the random
    initial weights are forgotten. With decay 0 the mean is the weights themselves.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, p in module.named_parameters() if p.requires_grad]
        self._live = [p for p in module.parameters() if p.requires_grad]
        self._mean = [p.detach().clone() for p in self._live] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step``."""
        if self._mean:
            decay = min(self.decay, (1.0 + step) / (10.0 + step))
            torch._foreach_lerp_(self._mean, [p.detach() for p in self._live], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the mean in the network's place; outside of the block the weights are back."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, live in zip(self._mean, self._live, strict=False):
            kept = live.detach().clone()
            live.copy_(mean)
            mean.copy_(kept)

    @torch.no_grad()
    def bake(self) -> None:
        """Put the mean in the network's place for good."""
        for mean, live in zip(self._mean, self._live, strict=False):
            live.copy_(mean)

    def state_dict(self) -> dict[str, Tensor]:
        """The mean by parameter name; empty with decay 0."""
        return dict(zip(self._names, self._mean, strict=False))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        with torch.no_grad():
            for name, mean in zip(self._names, self._mean, strict=False):
                mean.copy_(state[name])
