"""Weights of a network: what its safetensors files hold, known from their headers, and whether its config asks for no more.

A config of 200 bytes can ask for a network of 200 GB. diffusers builds a network before it opens the weights; so here it is
built once without memory, on torch's meta device, and given up as soon as it is larger than the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wsigen.base.errors import BundleError, refusing

if TYPE_CHECKING:
    from torch import nn

Shapes = dict[str, tuple[int, ...]]

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3")
"""What safetensors calls the types of numbers that weights may have: others mean something only with scales of their own."""

_BYTE = "F8_E4M3"

_SCALE = re.compile(r"(?:^|[._])(?:scale_(?:weight|input|inv)|(?:weight|input)_scale(?:_inv)?|scaled_fp8)$")
"""Names of the scales that some tools put beside floats of a byte."""

_SHARED = 2
"""How often a network may list a tensor while it is built."""

_LARGER = "the config describes a larger network than the weights hold"


AVERAGED = ("ema", "", "non_ema")
"""Variants of weights in the order in which they are chosen: running means, those that do not say, those of the last step."""

PRECISIONS = ("", "fp32", "fp16", "bf16")
"""Of each of them: what does not say, or says that it is whole, before what is rounded."""

_FILE = re.compile(r"[^.]+?(-\d+-of-\d+)?(\.(?P<variant>.+?))?(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a part: the name of their variant, e.g. ``fp16`` (None: they have none), and their files."""

    variant: str | None
    files: tuple[Path, ...]


def choose_weights(folder: Path) -> Weights:
    """Choose among the variants of the weights of a part: by `AVERAGED`, and then by `PRECISIONS`.

    Raises
    ------
    BundleError
        If there are several, and of none is it known what it is.
    """
    variant, names = choose_variant(str(folder), (file.name for file in folder.glob("*.safetensors")))
    return Weights(variant, tuple(folder / name for name in names))


def choose_variant(folder: str, names: Iterable[str]) -> tuple[str | None, list[str]]:
    """The same by the names of the files alone: the variant, and its files.

    Raises
    ------
    BundleError
        If there are several variants, and of none is it known what it is.
    """
    variants: dict[str, list[str]] = {}
    for name in sorted(names):
        match = _FILE.fullmatch(name)
        variants.setdefault((match and match["variant"]) or "", []).append(name)
    if not variants:
        return None, []
    known = [name for name in variants if _rank(name) is not None]
    if not known and len(variants) > 1:
        listed = ", ".join(sorted(variants))
        raise BundleError(f"{folder}: weights in the variants {listed}, none of which is known; leave the one to be used alone")
    best = min(known, key=lambda name: _rank(name) or (0, 0)) if known else next(iter(variants))
    return best or None, variants[best]


def _rank(variant: str) -> tuple[int, int] | None:
    """The place of a variant such as ``ema.fp16`` in the order, None for an unknown one."""
    words = variant.split(".") if variant else []
    averaged = [w for w in words if w in AVERAGED]
    precise = [w for w in words if w in PRECISIONS]
    if len(averaged) > 1 or len(precise) > 1 or len(averaged) + len(precise) != len(words):
        return None
    return AVERAGED.index("".join(averaged)), PRECISIONS.index("".join(precise))


def read_shapes(folder: Path) -> Shapes:
    """The shape of every tensor in the weights of a folder (`choose_weights`), by name; no weights are read.

    Raises
    ------
    BundleError
        If a file is damaged, or a tensor is of integers, or of floats of a byte that have scales beside them.
    """
    from safetensors import safe_open

    shapes: Shapes = {}
    bytewise = False
    for file in choose_weights(folder).files:
        with (
            refusing(BundleError, f"{file}: cannot be read", "copy the bundle again"),
            safe_open(file, framework="numpy") as weights,
        ):
            for name in weights.keys():  # noqa: SIM118  # no mapping
                tensor = weights.get_slice(name)
                if tensor.get_dtype() not in FLOATS:
                    kind = tensor.get_dtype()
                    raise BundleError(f"{file}: {name} is of type {kind}, not float: give weights that are not quantised")
                bytewise = bytewise or tensor.get_dtype() == _BYTE
                shapes[name] = tuple(tensor.get_shape())
    scale = next((name for name in shapes if bytewise and _SCALE.search(name)), None)
    if scale is not None:
        raise BundleError(f"{folder}: {scale} scales floats of a byte: give weights that are not quantised")
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
        tensors = network.state_dict(keep_vars=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name, shape in shapes.items():
            if held.get(name, shape) != shape:
                raise ValueError(f"by the config, {name} is {list(shape)}; the weights hold {list(held[name])}")
        # a tensor of two names, such as T5's words, is saved once
        if sum(tensor.numel() for tensor in {id(t): t for t in tensors.values()}.values()) > sum(map(prod, held.values())):
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
