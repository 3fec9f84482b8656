"""``inception``: Inception-v3 up to its 2048 pooled features, the network FID and the inception score were defined with.

Two kinds of weights exist (Szegedy et al. 2016, with the names that published weights have). Those of ImageNet have 1000
classes. Those that FID is defined by (the TensorFlow graph of 2015) have 1008, leave padding out of their average pools and
end in a maximum pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsigen.base.errors import EvaluationError
from wsigen.models.extractors.torch_module import TorchExtractor, ready, resized

SIDE_PX = 299

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
"""The TensorFlow graph of 2015 as a state dict; the name ends in the first digits of its SHA-256."""


def open_inception(weights: Path | None, device: str) -> TorchExtractor:
    """Load Inception-v3 from a state dict (of FID's graph or of ImageNet), or download FID's once.

    Raises
    ------
    EvaluationError
        If the file is missing or no such state dict, or the network cannot be reached.
    """
    state = _read(weights) if weights else _download()
    source = weights or "the downloaded file"
    if "fc.weight" not in state:
        raise EvaluationError(f"{source}: no state dict of Inception-v3 (there is no fc.weight); give that of FID or ImageNet")
    classes = int(state["fc.weight"].shape[0])
    network = Inception(classes)
    kept = {k: v for k, v in state.items() if not k.startswith("AuxLogits.")}
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    try:
        network.load_state_dict(counters | kept)
    except RuntimeError as error:
        raise EvaluationError(f"{source}: does not fit Inception-v3 ({' '.join(str(error).split())[:160]})") from None
    ready(network, device)
    fid = classes == 1008
    weight, bias = (v.detach().cpu().double().numpy() for v in (network.fc.weight, network.fc.bias))
    how = "FID 2015-12-05, bilinear as in TensorFlow 1" if fid else "ImageNet, bilinear"
    version = f"{how} to 299 px, {classes} classes"

    def run(pictures: Tensor) -> Tensor:
        return network(
            (_resized_tf1(pictures, SIDE_PX) * 255 - 128) / 128 if fid else resized(pictures, SIDE_PX, antialias=False) * 2 - 1
        )

    # The inception score of 2016 leaves the bias of its 1008 classes out.
    return TorchExtractor("inception", version, network, run, device, SIDE_PX, (weight, np.zeros_like(bias) if fid else bias))


def _resized_tf1(pictures: Tensor, side: int) -> Tensor:
    """Bilinear resize whose pixel (0, 0) stays in place, as the graph of 2015 has it: half a pixel off any other."""
    for axis in (2, 3):
        size = pictures.shape[axis]
        place = torch.arange(side, dtype=torch.float64, device=pictures.device) * size / side
        low = place.floor().long()
        share = (place - low).float().view(-1, *[1] * (3 - axis))
        high = (low + 1).clamp(max=size - 1)
        pictures = pictures.index_select(axis, low) * (1 - share) + pictures.index_select(axis, high) * share
    return pictures


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file of Inception weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise EvaluationError(f"{path}: not readable as weights ({type(error).__name__}); give a PyTorch state dict") from None
    if not isinstance(state, dict):
        raise EvaluationError(f"{path}: holds a {type(state).__name__}; give a PyTorch state dict")
    return state


def _download() -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.hub.load_state_dict_from_url(URL, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise EvaluationError(
            f"Inception's weights cannot be downloaded ({reason}); give a file, --features inception:FILE, or use 'embedded'"
        ) from None
    return state


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; same padding unless it strides."""

    def __init__(self, inputs: int, outputs: int, size: int | tuple[int, int] = 1, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        kernel = (size, size) if isinstance(size, int) else size
        padding = (kernel[0] // 2, kernel[1] // 2) if pad and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` -> ``(B, outputs, h', w')``."""
        return nn.functional.relu(self.bn(self.conv(x)))


Step = tuple[Any, ...] | None
"""Channels, size and perhaps stride of a convolution; None: a fork into 384 channels of 1 x 3 and as many of 3 x 1."""


class Mixed(nn.Module):
    """Branches side by side, their outputs concatenated.

    Parameters
    ----------
    branches : dict
        The steps of each branch by its name; the convolutions are called ``NAME_1``, ``NAME_2a`` ..., an only one ``NAME``.
    pool : int or None
        Channels of a last branch behind a pool; None: a strided maximum, as it is.
    kind : {"avg", "padded avg", "max"}
        That pool; ``padded``: zeros around the picture count.
    """

    def __init__(self, inputs: int, branches: Mapping[str, Sequence[Step]], pool: int | None = None, kind: str = "avg") -> None:
        super().__init__()
        self.kind, self.branches = kind if pool else "strided", list[list[list[str]]]()
        for branch, steps in branches.items():
            before, names = inputs, []
            for i, step in enumerate(steps, 1):
                name = f"{branch}_{i}" if len(steps) > 1 else branch
                made = {name: step} if step else {f"{name}a": (384, (1, 3)), f"{name}b": (384, (3, 1))}
                for own, how in made.items():
                    self.add_module(own, Conv(before, *how))
                names.append([*made])
                before = sum(how[0] for how in made.values())
            self.branches.append(names)
        if pool:
            self.branch_pool = Conv(inputs, pool)

    def forward(self, x: Tensor) -> Tensor:
        """Run every branch and the pool."""
        outputs = []
        for branch in self.branches:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            outputs.append(y)
        return torch.cat([*outputs, self._pooled(x)], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.kind == "strided":
            return nn.functional.max_pool2d(x, 3, 2)
        if self.kind == "max":
            return self.branch_pool(nn.functional.max_pool2d(x, 3, 1, 1))
        return self.branch_pool(nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=self.kind == "padded avg"))


def _a(inputs: int, pool: int, kind: str) -> Mixed:
    five, three = [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]
    return Mixed(inputs, {"branch1x1": [(64, 1)], "branch5x5": five, "branch3x3dbl": three}, pool, kind)


def _c(w: int, kind: str) -> Mixed:
    seven: Sequence[Step] = [(w, 1), (w, (1, 7)), (192, (7, 1))]
    double: Sequence[Step] = [(w, 1), (w, (7, 1)), (w, (1, 7)), (w, (7, 1)), (192, (1, 7))]
    return Mixed(768, {"branch1x1": [(192, 1)], "branch7x7": seven, "branch7x7dbl": double}, 192, kind)


def _e(inputs: int, kind: str) -> Mixed:
    branches: dict[str, Sequence[Step]] = {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1), None],
        "branch3x3dbl": [(448, 1), (384, 3), None],
    }
    return Mixed(inputs, branches, 192, kind)


class Inception(nn.Module):
    """``(B, 3, 299, 299)`` in -1 .. 1 -> ``(B, 2048)``; ``fc`` is kept for class probabilities."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        fid = classes == 1008
        kind = "avg" if fid else "padded avg"
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32, kind), _a(256, 64, kind), _a(288, 64, kind)
        self.Mixed_6a = Mixed(288, {"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]})
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_c(w, kind) for w in (128, 160, 160, 192))
        seven: Sequence[Step] = [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)]
        self.Mixed_7a = Mixed(768, {"branch3x3": [(192, 1), (320, 3, 2)], "branch7x7x3": seven})
        self.Mixed_7b, self.Mixed_7c = _e(1280, kind), _e(2048, "max" if fid else kind)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nn.functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(nn.functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
