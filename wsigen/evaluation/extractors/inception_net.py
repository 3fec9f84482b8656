"""Inception-v3 (Szegedy et al. 2016) up to its 2048 pooled features, with the names that published weights have.

Two kinds of weights exist. Those of ImageNet have 1000 classes. Those that FID is defined by (the TensorFlow graph of 2015)
have 1008, leave padding out of their average pools and end in a maximum pool.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Size = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; same padding unless it strides."""

    def __init__(self, inputs: int, outputs: int, size: Size = 1, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        kernel = (size, size) if isinstance(size, int) else size
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w]`` -> ``[n, outputs, h', w']``."""
        return nn.functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their outputs concatenated.

    Attributes
    ----------
    branches:
        For each branch the names of its convolutions, in order; a tuple of names forks.
    pool:
        ``avg`` (before ``branch_pool``), ``max`` (before it) or ``stride`` (a strided maximum, as it is).
    """

    def __init__(self, convs: dict[str, Conv], branches: list[list[str | tuple[str, str]]], pool: str, padded: bool) -> None:
        super().__init__()
        for name, conv in convs.items():
            self.add_module(name, conv)
        self.branches, self.pool, self.padded = branches, pool, padded

    def forward(self, x: Tensor) -> Tensor:
        """Run every branch and the pool."""
        return torch.cat([*(self._branch(x, names) for names in self.branches), self._pooled(x)], dim=1)

    def _branch(self, x: Tensor, names: list[str | tuple[str, str]]) -> Tensor:
        for name in names:
            if isinstance(name, tuple):
                x = torch.cat([self.get_submodule(n)(x) for n in name], dim=1)
            else:
                x = self.get_submodule(name)(x)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "stride":
            return nn.functional.max_pool2d(x, 3, 2)
        if self.pool == "max":
            x = nn.functional.max_pool2d(x, 3, 1, 1)
        else:
            x = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=self.padded)
        return self.get_submodule("branch_pool")(x)


def _a(inputs: int, pool: int, padded: bool) -> Mixed:
    convs = {
        "branch1x1": Conv(inputs, 64),
        "branch5x5_1": Conv(inputs, 48), "branch5x5_2": Conv(48, 64, 5),
        "branch3x3dbl_1": Conv(inputs, 64), "branch3x3dbl_2": Conv(64, 96, 3), "branch3x3dbl_3": Conv(96, 96, 3),
        "branch_pool": Conv(inputs, pool),
    }  # fmt: skip
    branches = [["branch1x1"], ["branch5x5_1", "branch5x5_2"], [f"branch3x3dbl_{i}" for i in (1, 2, 3)]]
    return Mixed(convs, branches, "avg", padded)  # type: ignore[arg-type]  # lists of names only


def _b(inputs: int) -> Mixed:
    convs = {
        "branch3x3": Conv(inputs, 384, 3, 2, False),
        "branch3x3dbl_1": Conv(inputs, 64), "branch3x3dbl_2": Conv(64, 96, 3), "branch3x3dbl_3": Conv(96, 96, 3, 2, False),
    }  # fmt: skip
    return Mixed(convs, [["branch3x3"], [f"branch3x3dbl_{i}" for i in (1, 2, 3)]], "stride", True)


def _c(width: int, padded: bool) -> Mixed:
    w = width
    convs = {
        "branch1x1": Conv(768, 192),
        "branch7x7_1": Conv(768, w), "branch7x7_2": Conv(w, w, (1, 7)), "branch7x7_3": Conv(w, 192, (7, 1)),
        "branch7x7dbl_1": Conv(768, w), "branch7x7dbl_2": Conv(w, w, (7, 1)), "branch7x7dbl_3": Conv(w, w, (1, 7)),
        "branch7x7dbl_4": Conv(w, w, (7, 1)), "branch7x7dbl_5": Conv(w, 192, (1, 7)),
        "branch_pool": Conv(768, 192),
    }  # fmt: skip
    seven, double = [f"branch7x7_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]
    return Mixed(convs, [["branch1x1"], seven, double], "avg", padded)  # type: ignore[list-item]  # lists of names only


def _d() -> Mixed:
    convs = {
        "branch3x3_1": Conv(768, 192), "branch3x3_2": Conv(192, 320, 3, 2, False),
        "branch7x7x3_1": Conv(768, 192), "branch7x7x3_2": Conv(192, 192, (1, 7)), "branch7x7x3_3": Conv(192, 192, (7, 1)),
        "branch7x7x3_4": Conv(192, 192, 3, 2, False),
    }  # fmt: skip
    return Mixed(convs, [["branch3x3_1", "branch3x3_2"], [f"branch7x7x3_{i}" for i in (1, 2, 3, 4)]], "stride", True)


def _e(inputs: int, pool: str, padded: bool) -> Mixed:
    convs = {
        "branch1x1": Conv(inputs, 320),
        "branch3x3_1": Conv(inputs, 384), "branch3x3_2a": Conv(384, 384, (1, 3)), "branch3x3_2b": Conv(384, 384, (3, 1)),
        "branch3x3dbl_1": Conv(inputs, 448), "branch3x3dbl_2": Conv(448, 384, 3),
        "branch3x3dbl_3a": Conv(384, 384, (1, 3)), "branch3x3dbl_3b": Conv(384, 384, (3, 1)),
        "branch_pool": Conv(inputs, 192),
    }  # fmt: skip
    double: list[str | tuple[str, str]] = ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")]
    return Mixed(convs, [["branch1x1"], ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")], double], pool, padded)


class Inception(nn.Module):
    """``[n, 3, 299, 299]`` in -1 .. 1 -> ``[n, 2048]``; ``fc`` is kept for class probabilities."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        padded = classes != 1008
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, 1, False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32, padded), _a(256, 64, padded), _a(288, 64, padded)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(128, padded), _c(160, padded)
        self.Mixed_6d, self.Mixed_6e = _c(160, padded), _c(192, padded)
        self.Mixed_7a, self.Mixed_7b = _d(), _e(1280, "avg", padded)
        self.Mixed_7c = _e(2048, "avg" if padded else "max", padded)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nn.functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(nn.functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
