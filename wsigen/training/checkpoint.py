"""Checkpoints that are whole or absent: written beside their place, then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings and containers of them) atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save(state, beside)
    beside.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def require_finite(loss: float, stage: str, step: int) -> None:
    """Stop training as soon as a loss is not a number."""
    if not loss == loss or loss in (float("inf"), float("-inf")):
        raise FloatingPointError(f"The {stage}'s loss is {loss} at step {step}; training stopped.")
