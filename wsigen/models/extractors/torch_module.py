"""An extractor made of a torch module: pictures in, a vector each out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from wsigen.base.errors import EvaluationError

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TorchExtractor:
    """See `extractors.Extractor`.

    Attributes
    ----------
    network : nn.Module
        What is hashed; it runs on ``device``.
    run : callable
        float32 ``(n, 3, P, P)`` in 0 .. 1 -> ``(n, d)``; it prepares the pictures, too.
    side_px : int
        Side of the pictures it was trained with; others it resizes, or takes as they are.
    head : tuple or None
        ``(classes, d)`` and ``(classes,)`` of a linear layer on the features, or None.
    """

    name: str
    version: str
    network: nn.Module
    run: Run
    device: str
    side_px: int
    head: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    @cached_property
    def sha256(self) -> str:
        """Of names and bytes of every parameter and buffer."""
        total = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            total.update(name.encode() + b"\0" + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    @cached_property
    def dimension(self) -> int:
        """Length of a feature vector, found by running one."""
        return int(self.features(np.zeros((1, 64, 64, 3), np.uint8)).shape[1])

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 ``(n, d)`` of uint8 ``(n, P, P, 3)``."""
        with torch.inference_mode():
            pictures = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float() / 255
            return np.ascontiguousarray(self.run(pictures).float().cpu().numpy())

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Softmax of the head, float64 ``(n, classes)``, or None."""
        if self.head is None:
            return None
        weight, bias = self.head
        return np.asarray(softmax(features.astype(np.float64) @ weight.T + bias, axis=1))


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or this machine does not have (EvaluationError with torch's reason)."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # torch built without CUDA asserts; some kinds are packages
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise EvaluationError(f"--device {device}: not usable here ({reason}); cpu always is") from None


def ready(network: nn.Module, device: str) -> nn.Module:
    """A network for inference on its device."""
    return network.requires_grad_(False).eval().to(device)


def resized(pictures: Tensor, side: int, antialias: bool) -> Tensor:
    """Bilinear resize to ``side`` px a side."""
    if pictures.shape[-1] == side == pictures.shape[-2]:
        return pictures
    return nn.functional.interpolate(pictures, (side, side), mode="bilinear", align_corners=False, antialias=antialias)
