"""Layers that take the place of a network's own: GroupNorm with shared statistics, 1x1 convolutions as matrix products, codes.

**A decoder that is a local function.** GroupNorm (Wu & He 2018, eq. 1) takes mean and variance over its whole input::

    y = (x - mean_g) / sqrt(var_g + eps) * weight + bias          for every group g of channels

so that windows decoded one by one drift in tone, each against its own mean. With statistics measured once for the whole slide
the decoder (without attention) depends on nothing but a window's surroundings.

**A result that does not depend on the number of CPU threads.** oneDNN splits the sum over the channels of a 1x1 convolution by
the number of threads, and sums in another order are other bits. A matrix product over the same numbers splits rows alone.
Measured with torch 2.13 on AVX-512: 1, 2 and 4 threads then give equal predictions; 3 do not, as group norms and activations
are cut at other places.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.models.halo import POOLED_PX

Statistics = NDArray[np.float64]
Array = NDArray[np.float32]

DISTANCES = 2**22
"""Distances between pixels and codes that are held at a time: 16 MiB."""


class _Pooling(threading.local):
    """What the current thread collects: None, or the statistics of the norms passed so far."""

    collected: dict[SharedGroupNorm, Statistics] | None = None


_pooling = _Pooling()


class _Frozen(threading.local):
    """Scale and shift per channel that the current thread uses, or None."""

    affine: tuple[Tensor, Tensor] | None = None


@contextmanager
def pooled_statistics() -> Iterator[dict[SharedGroupNorm, Statistics]]:
    """Normalise over whole batches in this thread; collect ``(groups, 2)``, mean and variance, of each norm.

    A batch of windows is then decoded as one picture would be: every layer sees what the layers before it make of the pooled
    statistics.
    """
    _pooling.collected = {}
    try:
        yield _pooling.collected
    finally:
        _pooling.collected = None


class SharedGroupNorm(nn.Module):
    """A ``GroupNorm`` whose statistics can be fixed.

    Attributes
    ----------
    norm : nn.GroupNorm
        The norm it stands for; its affine parameters stay.

    Statistics are fixed for the calling thread alone: threads that decode different slides share one model.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self._local = _Frozen()

    @property
    def frozen(self) -> bool:
        """Whether this thread uses fixed statistics."""
        return self._local.affine is not None

    def freeze(self, statistics: Statistics | None) -> None:
        """Use statistics ``(groups, 2)`` in this thread from now on; None: each picture its own."""
        self._local.affine = None if statistics is None else self._affine(statistics)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, ``(B, C, ...)``."""
        if _pooling.collected is not None:
            statistics = self._measure(x)
            _pooling.collected[self] = statistics
            return _apply(x, *self._affine(statistics))
        frozen = self._local.affine
        if frozen is not None:
            return _apply(x, *frozen)
        norm = self.norm
        return functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)

    def _measure(self, x: Tensor) -> Statistics:
        """Mean and variance of every group over the batch and all pixels."""
        dims = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x.float(), dim=dims, correction=0)
        shape = (self.norm.num_groups, -1)
        means = mean.cpu().numpy().astype(np.float64).reshape(shape)
        squares = var.cpu().numpy().astype(np.float64).reshape(shape) + means**2
        group_mean = means.mean(axis=1)
        return np.stack([group_mean, squares.mean(axis=1) - group_mean**2], axis=1)

    def _affine(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Scale and shift per channel that do the same as the norm with these statistics."""
        norm = self.norm
        per_channel = np.repeat(statistics, norm.num_channels // norm.num_groups, axis=0)
        weight, bias = (values.detach().double().cpu().numpy() for values in (norm.weight, norm.bias))
        scale = weight / np.sqrt(np.maximum(per_channel[:, 1], 0.0) + norm.eps)
        shift = bias - per_channel[:, 0] * scale
        scale32, shift32 = (torch.from_numpy(v.astype(np.float32)).to(norm.weight.device) for v in (scale, shift))
        return scale32, shift32


def _apply(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)


def share_group_norms(module: nn.Module) -> list[SharedGroupNorm]:
    """Replace every ``GroupNorm`` inside ``module``; return the replacements in the order of its modules."""
    shared = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                replacement = SharedGroupNorm(child)
                setattr(parent, name, replacement)
                shared.append(replacement)
    return shared


def pool(parts: list[tuple[int, Statistics]]) -> Statistics:
    """Pool (pixels, statistics ``(n, 2)``) of several batches: mean of means, variance from the mean of squares."""
    weights = np.array([pixels for pixels, _ in parts], dtype=np.float64)
    stacked = np.stack([statistics for _, statistics in parts])
    mean = np.average(stacked[..., 0], axis=0, weights=weights)
    squares = np.average(stacked[..., 1] + stacked[..., 0] ** 2, axis=0, weights=weights)
    return np.stack([mean, squares - mean**2], axis=-1)


def pools_of(latents: Sequence[Array]) -> list[Array]:
    """Stack neighbouring windows ``(C, h, w)`` of one shape, at most `POOLED_PX` px (or one window) a stack."""
    groups: list[list[Array]] = []
    for window in latents:
        group = groups[-1] if groups else []
        if group and group[0].shape == window.shape and (len(group) + 1) * window[0].size <= POOLED_PX:
            group.append(window)
        else:
            groups.append([window])
    return [np.stack(group) for group in groups]


class Pointwise(nn.Module):
    """A 1x1 convolution, computed as ``y = x W^T + b`` per pixel."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x``, ``(B, C, h, w)``, to ``(B, D, h, w)``, both laid out channels last."""
        weight = self.convolution.weight[:, :, 0, 0]
        return functional.linear(x.permute(0, 2, 3, 1), weight, self.convolution.bias).permute(0, 3, 1, 2)


def replace_pointwise(module: nn.Module) -> None:
    """Replace every plain 1x1 convolution inside ``module``."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and _is_plain(child):
                setattr(parent, name, Pointwise(child))


def _is_plain(convolution: nn.Conv2d) -> bool:
    ones = (convolution.kernel_size, convolution.stride)
    return ones == ((1, 1), (1, 1)) and convolution.padding in (0, (0, 0)) and convolution.groups == 1


class NearestCode(nn.Module):
    """Vector quantisation (van den Oord et al. 2017, eq. 1): every pixel becomes the code of the book nearest to it.

    diffusers takes distances by a matrix product, whose rounding depends on how many pixels there are, and holds all of them
    at once. Here a pixel's code depends on the pixel alone, so that overlapping windows agree, and memory is bounded
    (`DISTANCES`).

    Parameters
    ----------
    codes : nn.Parameter
        ``(n, C)``.
    """

    def __init__(self, codes: nn.Parameter) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, x: Tensor) -> tuple[Tensor, None, None]:
        """Return the codes ``(B, C, h, w)`` of ``x``, in the place of diffusers' quantiser, and neither of its losses."""
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        parts = rows.split(max(1, DISTANCES // len(self.codes)))
        nearest = [torch.cdist(part, self.codes, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1) for part in parts]
        return self.codes[torch.cat(nearest)].unflatten(0, (len(x), *x.shape[2:])).permute(0, 3, 1, 2), None, None


def activate_in_place(module: nn.Module) -> None:
    """Let SiLU overwrite the output of the norm before it, which nothing else reads: the same bits without fresh pages.

    On a CPU half of the time of decoding goes into pages of memory (measured); this saves a twelfth of the whole. Not for
    U-Nets, whose time embedding several blocks read.
    """
    for child in module.modules():
        if isinstance(child, nn.SiLU):
            child.inplace = True
