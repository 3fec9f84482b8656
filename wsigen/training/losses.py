"""Losses of autoencoders, each one term without a weight; images in [-1, 1]."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReconstructionTerms(NamedTuple):
    """Scalars: L1 of pixels, of gradients and of local mean colour, and the KL divergence to a unit Gaussian."""

    l1: Tensor
    gradient: Tensor
    colour: Tensor
    kl: Tensor


def reconstruction_terms(x: Tensor, y: Tensor, mean: Tensor, logvar: Tensor) -> ReconstructionTerms:
    """Compare a reconstruction with the image.

    Parameters
    ----------
    x, y : (B, 3, H, W) image and reconstruction; H and W at least 32
    mean, logvar : (B, C, h, w) of the posterior

    Returns
    -------
    the terms; ``kl`` is the mean over latent values of (mean^2 + var - 1 - log var) / 2
    """
    edges = [(a - b).abs().mean() for a, b in zip(_gradients(x), _gradients(y), strict=True)]
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return ReconstructionTerms((x - y).abs().mean(), torch.stack(edges).sum(), colour_error(x - y), kl)


def colour_error(difference: Tensor) -> Tensor:
    """L1 of the mean colour of crops and of 32 px blocks, and (doubled) of chroma in 4 px blocks.

    Grey detail dominates a plain L1; without the last term pink and blue-grey fibres come out alike.
    """
    chroma = difference - difference.mean(dim=1, keepdim=True)
    return (
        difference.mean(dim=(2, 3)).abs().mean()
        + functional.avg_pool2d(difference, 32).abs().mean()
        + 2.0 * functional.avg_pool2d(chroma, 4).abs().mean()
    )


def build_adversary() -> nn.Sequential:
    """Build a small patch discriminator; each output sees 34 px."""
    widths = (3, 32, 64, 128)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))


def fine(x: Tensor) -> Tensor:
    """Keep what is finer than about 16 px: the adversary must not move the mean colour."""
    return x - functional.avg_pool2d(x, 17, stride=1, padding=8, count_include_pad=False)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: real outputs above 1, false ones below -1."""
    return functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]
