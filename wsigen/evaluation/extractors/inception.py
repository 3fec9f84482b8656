"""``inception``: the network FID and the inception score were defined with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.extractors.inception_net import Inception
from wsigen.evaluation.extractors.torch_module import TorchExtractor, ready, resized

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
        x = (_resized_tf1(pictures, 299) * 255 - 128) / 128 if fid else resized(pictures, 299, antialias=False) * 2 - 1
        found: Tensor = network(x)
        return found

    # The inception score of 2016 leaves the bias of its 1008 classes out.
    return TorchExtractor("inception", version, network, run, device, (weight, np.zeros_like(bias) if fid else bias))


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
