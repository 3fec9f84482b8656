"""What the loop trains: networks with their losses, batches drawn as a function of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Player:
    """A network with an optimiser of its own; the first player of a task is the one that is averaged and published.

    Attributes
    ----------
    peak_rate : highest learning rate
    betas : of AdamW
    """

    module: nn.Module
    peak_rate: float
    betas: tuple[float, float]


class Task(Protocol):
    """A model in training.

    Attributes
    ----------
    name : for people
    result : folder, within that of the training, of what is published
    columns : the scalars `loss` gives, besides the loss of the first player
    """

    name: str
    result: str
    columns: tuple[str, ...]

    def players(self) -> dict[str, Player]:
        """The networks by name; the first is the model."""
        ...

    def playing(self, share: float) -> tuple[str, ...]:
        """Names of the players that learn when this share of the steps is done, in their order; by default all."""
        return tuple(self.players())

    def draw(self, step: int, part: int) -> Tensors:
        """Make a part of a step's batch, its noise included: a pure function of (seed, step, part), on the CPU.

        A thread calls it while the model computes.
        """
        ...

    def loss(self, player: str, modules: Mapping[str, nn.Module], batch: Tensors, share: float) -> tuple[Tensor, Tensors]:
        """Return a player's loss on a part, and scalars to report.

        ``modules`` holds the players' networks as they must be called (wrapped for several processes).
        """
        ...

    def after_step(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Update what is not learned by gradients (by default nothing); ``gather`` joins the processes' rows."""
        return

    def memories(self) -> dict[str, nn.Module]:
        """Modules without an optimiser that belong to a checkpoint."""
        return {}

    def preview(self, device: Any) -> NDArray[np.uint8] | None:
        """Draw a sample grid, uint8 [H, W, 3], with the network as it is; must leave torch's random state alone."""
        ...
