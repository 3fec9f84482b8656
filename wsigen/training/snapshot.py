"""Checkpoints of a training: whole or absent, and of one configuration; and what identifies a configuration."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsigen.base.errors import TrainingError
from wsigen.storage.files import atomic_path, remove_leftovers, sha256

FORMAT = 2

Identity = dict[str, str]
"""Dotted field names to values, as text: every setting that decides the weights."""

PARTS = ("unet", "vae", "bundle/vae", "scheduler", "text_encoder", "tokenizer", "summariser")
"""Folders of a diffusers model that training may begin at; of the rest of a repository nothing is used."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a checkpoint holds: steps done, the last one's scalars, and the state of everything trained."""

    step: int
    scalars: dict[str, float]
    state: dict[str, Any]


def save_snapshot(path: Path, state: Mapping[str, Any], identity: Identity, step: int, scalars: Mapping[str, float]) -> None:
    """Write the state after ``step`` steps; on any failure the file that was there stays.

    Raises
    ------
    TrainingError
        If the disk is full or not writable.
    """
    content = {"format": FORMAT, "identity": identity, "step": step, "scalars": dict(scalars), "state": dict(state)}
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


def load_snapshot(path: Path, identity: Identity) -> Snapshot:
    """Read a checkpoint of the same configuration; nothing in it is executed.

    Raises
    ------
    TrainingError
        If it is damaged, of another version, or of another configuration (the first field that differs is named).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, stored = int(content["format"]), dict(content["identity"])
        snapshot = Snapshot(int(content["step"]), dict(content["scalars"]), dict(content["state"]))
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such checkpoint; train without --resume") from None
    except Exception as error:  # torch raises nearly anything for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{path}: not a readable checkpoint ({reason}); delete it and train anew") from None
    if version != FORMAT:
        raise TrainingError(f"{path}: checkpoint format {version}, this version reads {FORMAT}; train anew")
    for name in [*identity, *stored]:
        then, now = stored.get(name, "None"), identity.get(name, "None")  # a setting that was not there yet was not set
        if then != now:
            raise TrainingError(
                f"{path}: the checkpoint was made with {name} {then}, the recipe says {now}; "
                "give the recipe it was made with, or another --out"
            )
    return snapshot


def identity_of(settings: Mapping[str, Any], prefix: str = "") -> Identity:
    """Flatten nested settings into dotted names."""
    flat: Identity = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat.update(identity_of(value, f"{name}.") if isinstance(value, Mapping) else {name: repr(value)})
    return flat


def model_key(folder: Path | None) -> str | None:
    """SHA-256 (16 hex digits) of the configs and weights of a diffusers folder or bundle; None for None.

    The same folder under another path is the same model. Parts that are not there count as not there: whether a model can be
    loaded is asked elsewhere.
    """
    if folder is None:
        return None
    named = [p for part in PARTS for kind in ("*.json", "*.txt", "*.safetensors") for p in (folder / part).glob(kind)]
    named += [p for kind in ("config.json", "*.safetensors") for p in folder.glob(kind) if (folder / "config.json").is_file()]
    named += [p for p in (folder / "wsigen.yaml", folder / "bundle" / "wsigen.yaml") if p.is_file()]
    total = hashlib.sha256()
    for path in sorted(named):
        stat = path.stat()
        key = _file_key(path, stat.st_size, stat.st_mtime_ns)
        total.update(path.relative_to(folder).as_posix().encode() + bytes.fromhex(key))
    return total.hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _file_key(path: Path, size: int, changed_ns: int) -> str:
    """Read a file once, unless it changes."""
    return sha256(path)


def weights_key(network: nn.Module) -> str:
    """SHA-256 (hex) of a network's weights."""
    total = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
