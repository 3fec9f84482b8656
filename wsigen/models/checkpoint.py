"""Checkpoints of other projects: tensors read from a pickle without running code of it, and networks filled with them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsigen.base.errors import BundleError, one_line

_REASON = re.compile(r"WeightsUnpickler error: (.*?)(?: was not an allowed|\. ?Please|\n|$)")
"""What torch's restricted reader stumbled on."""


def read_tensors(file: Path, part: str = "state_dict", allowed: tuple[type, ...] = ()) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint; nothing else in it is made, and no code of it is run.

    Parameters
    ----------
    part : str
        Name under which they lie, if the checkpoint has it; else they are the checkpoint.
    allowed : tuple of type
        Classes of plain values that may lie beside them.

    Raises
    ------
    BundleError
        If there is no such file, it holds anything but tensors, or more numbers than bytes.
    """
    if not file.is_file():
        raise BundleError(f"{file}: no such file")
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickles
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except Exception as error:
        # torch explains over many lines how to read it nevertheless, which is what must not be done
        found = _REASON.search(str(error))
        reason = one_line(found[1] if found else str(error).partition("\n")[0])[:120] or "torch did not write it"
        raise BundleError(
            f"{file}: cannot be read as tensors alone ({reason}); whatever else it holds could run code when read: take the "
            "file as it was released"
        ) from error
    content = content.get(part, content) if isinstance(content, dict) else {}
    named = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, Tensor)}
    if sum(tensor.numel() for tensor in tensors.values()) > file.stat().st_size:
        raise BundleError(f"{file}: says that it holds more numbers than it has bytes; take the file as it was released")
    return tensors


def _is_zip(file: Path) -> bool:
    """Whether torch wrote it in its present form, which can be read piece by piece."""
    with file.open("rb") as opened:
        return opened.read(4) == b"PK\x03\x04"


def filled(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor | None], what: str) -> Any:
    """A network of these tensors, built without memory of its own (ValueError if they are not just its own)."""
    with torch.device("meta"):
        network = build()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    held = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for problem, names in (("lacks", wanted.keys() - held.keys()), ("has no place for", held.keys() - wanted.keys())):
        if names:
            raise ValueError(f"the {what} {problem} {len(names)} tensors, e.g. {min(names)}")
    for name, tensor in held.items():
        if tuple(tensor.shape) != wanted[name] or not tensor.is_floating_point():
            actual = f"{list(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"the {what}'s {name} is {actual}; {list(wanted[name])} floats were expected")
    network.load_state_dict({name: tensor.detach().float() for name, tensor in held.items()}, assign=True)
    return network.eval()
