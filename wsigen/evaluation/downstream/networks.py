"""The networks that are trained: a small residual one with a head or a decoder, or one of timm's."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.downstream.results import Task
from wsigen.models.extractors.encoder import refuse_hub_file, refuse_pickle
from wsigen.models.extractors.torch_module import resized

WIDTHS = (16, 24, 48, 96, 160)
"""Channels at 1/2, 1/4 ... 1/32 of the crop: 0.6 M parameters, 0.13 G multiplications a crop of 256 px."""

_GROUPS = 8
"""Of group normalisation: unlike that of batches it does not mix real and synthetic crops of a batch."""


class Residual(nn.Module):
    """Two convolutions beside a shortcut, at half the resolution (He et al. 2016)."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, out, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(inside, out, 1, 2, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, out) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inside, h, w)`` -> ``(B, out, h / 2, w / 2)``."""
        inner = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(inner)) + self.norms[2](self.short(x)))


class Encoder(nn.Module):
    """Pictures to feature maps, fine to coarse."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.GroupNorm(_GROUPS, WIDTHS[0]), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList(Residual(a, b) for a, b in pairwise(WIDTHS))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return five maps of ``WIDTHS`` channels."""
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class Classifier(nn.Module):
    """The mean of the coarsest map, and a linear layer on it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, P, P)`` -> logits ``(B, classes)``."""
        return self.head(self.encoder(x)[-1].mean((2, 3)))


class Segmenter(nn.Module):
    """A U-Net: any encoder's maps are joined from coarse to fine (Ronneberger et al. 2015).

    Nothing in it depends on the order of additions on a GPU: maps are repeated, not interpolated.

    Parameters
    ----------
    channels, step : sequence of int, int
        Channels of the maps, fine to coarse, and pixels of a picture per pixel of the finest one.
    """

    def __init__(self, encoder: nn.Module, channels: Sequence[int], step: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.step = encoder, step
        widths = [max(24, min(c, 128)) // _GROUPS * _GROUPS for c in channels]
        inside = [channels[-1], *reversed(widths[1:-1])]
        self.joins = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a + b, c, 3, 1, 1, bias=False), nn.GroupNorm(_GROUPS, c), nn.ReLU(inplace=True))
            for a, b, c in zip(inside, reversed(channels[:-1]), reversed(widths[:-1]), strict=True)
        )
        self.head = nn.Conv2d(widths[0], classes * step**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, P, P)`` -> logits ``(B, classes, P, P)``."""
        *skips, y = self.encoder(x)
        for join, skip in zip(self.joins, reversed(skips), strict=True):
            y = join(torch.cat([functional.interpolate(y, skip.shape[2:], mode="nearest"), skip], dim=1))
        return functional.pixel_shuffle(self.head(y), self.step)[..., : x.shape[2], : x.shape[3]]


class Prepared(nn.Module):
    """A network with the preparation of its pictures.

    Attributes
    ----------
    rate : float
        Largest learning rate it is trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], side: int | None, rate: float) -> None:
        super().__init__()
        self.network, self.rate, self._side = network, rate, side
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 ``(B, P, P, 3)`` -> logits."""
        x = images.permute(0, 3, 1, 2).float() / 255
        x = x if self._side is None else resized(x, self._side, antialias=True)
        return self.network((x - self.mean) / self.std)

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def open_network(text: str, task: Task, classes: int) -> Prepared:
    """Build a network; random weights come from torch's generator.

    Parameters
    ----------
    text : str
        * ``small`` - 0.6 M parameters, from random weights (a decoder of 0.3 M more for masks);
        * ``timm:NAME`` - any timm model from its published weights, ``timm:NAME@FILE`` from a file, ``timm:NAME@random``.

    Raises
    ------
    EvaluationError
        If there is no such network, timm is not installed, or the weights cannot be loaded.
    """
    kind, _, rest = text.partition(":")
    if text == "small":
        network = Classifier(classes) if task == "classification" else Segmenter(Encoder(), WIDTHS, 2, classes)
        return Prepared(network, (0.5,) * 3, (0.25,) * 3, None, 2e-3)
    if kind != "timm" or not rest:
        raise EvaluationError(f"network {text!r}: not known; give small or timm:NAME, e.g. timm:resnet18")
    name, _, weights = rest.partition("@")
    if weights != "random":
        refuse_hub_file(name, weights, "network")
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # the latter: a torchvision of another torch
        raise EvaluationError(f"network {text}: timm is not usable here ({error}); pip install timm") from None
    make = _timm_segmenter if task == "segmentation" else _timm_classifier
    given: dict[str, Any] = {"pretrained": weights != "random"}
    if weights not in ("", "random"):
        refuse_pickle(weights)
        given["pretrained_cfg_overlay"] = {"file": weights}
    try:
        return make(timm, name, given, classes)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise EvaluationError(
            f"network {text}: cannot be loaded ({type(error).__name__}: {reason}); check the name, or give timm:{name}@FILE"
        ) from None


def try_network(text: str, task: Task, side_px: int) -> None:
    """Run a network once, before any slide is read.

    Raises
    ------
    EvaluationError
        As `open_network`, or if it takes no crops of that size.
    """
    with torch.random.fork_rng(), torch.inference_mode():
        network = open_network(text, task, 2).eval()
        try:
            network(torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise EvaluationError(
                f"network {text}: takes no crops of {side_px} px for {task} ({reason}); try --size 224"
            ) from None


def _timm_classifier(timm: Any, name: str, given: dict[str, Any], classes: int) -> Prepared:
    network = timm.create_model(name, num_classes=classes, **given)
    settings = timm.data.resolve_model_data_config(network)
    return Prepared(network, settings["mean"], settings["std"], int(settings["input_size"][-1]), 1e-4)


def _timm_segmenter(timm: Any, name: str, given: dict[str, Any], classes: int) -> Prepared:
    encoder = timm.create_model(name, features_only=True, **given)
    settings = timm.data.resolve_model_data_config(encoder)
    about = encoder.feature_info
    network = Segmenter(encoder, about.channels(), int(about.reduction()[0]), classes)
    return Prepared(network, settings["mean"], settings["std"], None, 1e-4)
