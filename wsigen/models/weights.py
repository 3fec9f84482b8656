"""Weights of a network: what its safetensors files hold, known from their headers, and whether its config asks for no more.

A config of 200 bytes can ask for a network of 200 GB. diffusers builds a network before it opens the weights; so here it is
built once without memory, on torch's meta device, and given up as soon as it is larger than the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wsigen.base.errors import BundleError, refusing

if TYPE_CHECKING:
    from torch import nn

Shapes = dict[str, tuple[int, ...]]

FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the types of numbers that weights may have: those of others mean something only with their scales."""

_SHARED = 2
"""How often a network may list a tensor while it is built."""

_LARGER = "the config describes a larger network than the weights hold"


def read_shapes(folder: Path) -> Shapes:
    """The shape of every tensor in the safetensors files of a folder, by name; no weights are read.

    Raises
    ------
    BundleError
        If a file is damaged, or a tensor is of integers or of floats of a byte.
    """
    from safetensors import safe_open

    shapes: Shapes = {}
    for file in sorted(folder.glob("*.safetensors")):
        with (
            refusing(BundleError, f"{file}: cannot be read", "copy the bundle again"),
            safe_open(file, framework="numpy") as weights,
        ):
            for name in weights.keys():  # noqa: SIM118  # no mapping
                tensor = weights.get_slice(name)
                if tensor.get_dtype() not in FLOATS:
                    kind = tensor.get_dtype()
                    raise BundleError(f"{file}: {name} is of type {kind}, not float: give weights that are not quantised")
                shapes[name] = tuple(tensor.get_shape())
    return shapes


def demand_fit(build: Callable[[], nn.Module], folder: Path) -> None:
    """Refuse a network that is larger than its weights, or whose tensors have other shapes there.

    Parameters
    ----------
    build : callable
        Makes the network from its config.
    folder : Path
        Holds its weights.

    Raises
    ------
    BundleError
        If the config describes no network, or another one than the weights.
    """
    import torch

    held = read_shapes(folder)
    if not held:
        raise BundleError(f"{folder}: no *.safetensors weights")
    with refusing(BundleError, folder, "its config and its weights are not of the same model: copy the bundle again"):
        with torch.device("meta"), _no_larger_than(held):
            network = build()
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        for name, shape in shapes.items():
            if held.get(name, shape) != shape:
                raise ValueError(f"by the config, {name} is {list(shape)}; the weights hold {list(held[name])}")
        if sum(map(prod, shapes.values())) > sum(map(prod, held.values())):
            lacking = sorted(shapes.keys() - held.keys())
            raise ValueError(f"{_LARGER}; they lack {len(lacking)} tensors, e.g. {lacking[0]}" if lacking else _LARGER)


@contextmanager
def _no_larger_than(held: Shapes) -> Iterator[None]:
    """Let this thread make no more parameters than ``held`` has, nor more numbers in them (ValueError)."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    thread, tensors, numbers = get_ident(), len(held) * _SHARED, sum(map(prod, held.values())) * _SHARED

    def count(module: Any, name: str, parameter: Any) -> None:
        nonlocal tensors, numbers
        if get_ident() != thread or parameter is None:
            return
        tensors, numbers = tensors - 1, numbers - parameter.numel()
        if min(tensors, numbers) < 0:
            raise ValueError(_LARGER)

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
