"""Checkpoints of a training: whole or absent, and of one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wsigen.base.errors import TrainingError
from wsigen.storage.files import atomic_path, remove_leftovers

FORMAT = 1

Identity = dict[str, str]
"""Dotted field names to values, as text: every setting that decides the weights."""


def identity_of(settings: Mapping[str, Any], prefix: str = "") -> Identity:
    """Flatten nested settings into dotted names."""
    found: Identity = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        found.update(identity_of(value, f"{name}.") if isinstance(value, Mapping) else {name: repr(value)})
    return found


def save_snapshot(path: Path, state: Mapping[str, Any], identity: Identity, step: int) -> None:
    """Write the state after ``step`` steps; on any failure the file that was there stays.

    Raises
    ------
    TrainingError
        If the disk is full or not writable.
    """
    content = {"format": FORMAT, "identity": identity, "step": step, "state": dict(state)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with atomic_path(path) as beside:
            torch.save(content, beside)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises a RuntimeError on a full disk
        kept = "the checkpoint before it is untouched" if path.exists() else "there is none before it"
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(
            f"{path}: the checkpoint of step {step} cannot be written ({reason}); {kept}: make room and resume"
        ) from None


def load_snapshot(path: Path, identity: Identity) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint of the same configuration; nothing in it is executed.

    Returns
    -------
    step, state
        Steps done, and what was saved.

    Raises
    ------
    TrainingError
        If it is damaged, of another version, or of another configuration (the first field that differs is named).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, stored = int(content["format"]), dict(content["identity"])
        step, state = int(content["step"]), dict(content["state"])
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such checkpoint; train without --resume") from None
    except Exception as error:  # torch raises nearly anything for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{path}: not a readable checkpoint ({reason}); delete it and train anew") from None
    if version != FORMAT:
        raise TrainingError(f"{path}: checkpoint format {version}, this version reads {FORMAT}; train anew")
    _same(path, stored, identity)
    return step, state


def _same(path: Path, stored: Identity, wanted: Identity) -> None:
    for name in [*wanted, *stored]:
        then, now = stored.get(name, "absent"), wanted.get(name, "absent")
        if then != now:
            raise TrainingError(
                f"{path}: the checkpoint was made with {name} {then}, the recipe says {now}; "
                "give the recipe it was made with, or another --out"
            )
