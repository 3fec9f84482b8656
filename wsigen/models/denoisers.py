"""Denoising networks of diffusers: what the config of each says, and how it is called.

All that differs between U-Nets and transformers stands here, so that a bundle's checks, its inputs and the engine speak of one
kind of network: it takes a sample ``(B, channels, p, p)``, a time, class embeddings or tokens, and gives a prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsigen.base.errors import BundleError
from wsigen.models.network_config import Config, read_config

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = ("unet", "transformer")
"""Folders of a bundle in which the denoising network may lie."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the config of a denoising network says.

    Attributes
    ----------
    part : str
        Its folder in the bundle.
    name : str
        diffusers' class.
    channels, outputs : int or None
        Of the sample and of the prediction, if it says so.
    learns_variance : bool
        Whether its prediction may have twice the channels of a latent, the second half being a variance.
    embeds : int or None
        Class embeddings by its config; None: it has none.
    embeds_key : str
        What the config calls them.
    counts_null : bool
        Whether the null class is one of them, or comes besides.
    tokens : int or list of int or None
        Numbers of a token that it attends to; None: it attends to none.
    tokens_key : str
        What the config calls that.
    multiple : int
        The side of a sample must be a multiple of it.
    side : int
        Of the samples of its training, latent px.
    planes : float
        Numbers that one layer holds for a latent px, which memory depends on.
    """

    part: str
    name: str
    channels: int | None
    outputs: int | None
    learns_variance: bool
    embeds: int | None
    embeds_key: str
    counts_null: bool
    tokens: int | list[int] | None
    tokens_key: str
    multiple: int
    side: int
    planes: float


def find_part(folder: Path) -> str:
    """Name the part of a bundle that is the denoiser, ``unet`` if there is none (BundleError if there are two)."""
    there = [part for part in PARTS if (folder / part).is_dir()]
    if len(there) > 1:
        raise BundleError(f"{folder}: has a unet and a transformer; leave the one that denoises")
    return there[0] if there else PARTS[0]


def read_architecture(folder: Path) -> tuple[Config, Architecture]:
    """Read the config of a bundle's denoiser, and what it says (BundleError if it is none that is known)."""
    part = find_part(folder)
    config = read_config(folder, part)
    name = str(config.get("_class_name"))
    if name not in KNOWN or KNOWN[name].part != part:
        possible = ", ".join(known for known, one in KNOWN.items() if one.part == part)
        raise BundleError(f"{folder}: the {part} is a {name}; possible: {possible}")
    return config, KNOWN[name].describe(name, config)


def attending(tokens: bool) -> list[str]:
    """Name the networks that attend to tokens, or those that do not."""
    return [name for name, known in KNOWN.items() if known.attends == tokens]


def folded(sample: Tensor, patch: int) -> Tensor:
    """Squares of ``patch`` x ``patch`` px as one px of as many more channels: ``(B, C, p, p)`` to ``(B, C s^2, p / s, p / s)``.

    A network that sees its sample so works on patches of it, as transformers do (Hoogeboom et al. 2023, simple diffusion).
    """
    from torch.nn import functional

    return sample if patch == 1 else functional.pixel_unshuffle(sample, patch)


def unfolded(prediction: Tensor, patch: int) -> Tensor:
    """The reverse of `folded`."""
    from torch.nn import functional

    return prediction if patch == 1 else functional.pixel_shuffle(prediction, patch)


def call(network: nn.Module, sample: Tensor, time: float, extra: dict[str, Any], channels: int, patch: int = 1) -> Tensor:
    """Call a denoising network.

    Parameters
    ----------
    network : nn.Module
        Of one of the classes `KNOWN`.
    sample : Tensor
        ``(B, ..., p, p)``.
    time : float
        On the scale of its training; whole numbers as int.
    extra : dict
        Class labels, or tokens and their mask.
    channels : int
        Of a latent; what the network gives besides, its variance, is left out.
    patch : int
        See `folded`.

    Returns
    -------
    Tensor
        ``(B, channels, p, p)``.
    """
    given = KNOWN[type(network).__name__].arguments(sample, time)
    prediction: Tensor = network(folded(sample, patch), **given, return_dict=False, **extra)[0]
    return unfolded(prediction, patch)[:, :channels]


def _unet(name: str, config: Config) -> Architecture:
    """A U-Net: every block but the last halves the sample."""
    attends, widths = name == "UNet2DConditionModel", config.get("block_out_channels") or (64,)
    side = config.get("sample_size") or 64
    return Architecture(
        part="unet",
        name=name,
        channels=config.get("in_channels"),
        outputs=config.get("out_channels"),
        learns_variance=False,
        embeds=config.get("num_class_embeds"),
        embeds_key="num_class_embeds",
        counts_null=True,
        tokens=config.get("cross_attention_dim", 1280) if attends else None,
        tokens_key="cross_attention_dim",
        multiple=2 ** (len(widths) - 1),
        side=min(side) if isinstance(side, (list, tuple)) else side,
        planes=widths[0],
    )


def _transformer(name: str, config: Config) -> Architecture:
    """A transformer over patches of the sample (Peebles & Xie 2023): with class embeddings, or with tokens it attends to."""
    attends, patch = name == "PixArtTransformer2DModel", config.get("patch_size") or 2
    width = config.get("num_attention_heads", 16) * config.get("attention_head_dim", 72)
    channels = config.get("in_channels") or 4
    key = "caption_channels" if config.get("caption_channels") else "cross_attention_dim"
    outputs = config.get("out_channels", 8 if attends else None) or channels
    return Architecture(
        part="transformer",
        name=name,
        channels=channels,
        outputs=outputs,
        learns_variance=True,
        embeds=None if attends else config.get("num_embeds_ada_norm", 1000),
        embeds_key="num_embeds_ada_norm",
        counts_null=False,
        tokens=config.get(key, 1152) if attends else None,
        tokens_key=key,
        multiple=patch,
        side=config.get("sample_size") or (128 if attends else 32),
        planes=width / patch**2,
    )


def _plain(sample: Tensor, time: float) -> dict[str, Any]:
    return {"timestep": time}


def _for_each(sample: Tensor, time: float) -> dict[str, Any]:
    """Transformers want a time for each row."""
    import torch

    return {"timestep": torch.full((len(sample),), time, device=sample.device)}


def _for_each_and_size(sample: Tensor, time: float) -> dict[str, Any]:
    """PixArt also wants to be told that nothing is said of the size of the picture."""
    return {**_for_each(sample, time), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}


@dataclass(frozen=True, slots=True)
class _Known:
    """A class of diffusers: where it lies, whether it attends to tokens, what its config says, what it is called with."""

    part: str
    attends: bool
    describe: Callable[[str, Config], Architecture]
    arguments: Callable[[Tensor, float], dict[str, Any]]


KNOWN = {
    "UNet2DModel": _Known("unet", False, _unet, _plain),
    "UNet2DConditionModel": _Known("unet", True, _unet, _plain),
    "DiTTransformer2DModel": _Known("transformer", False, _transformer, _for_each),
    "PixArtTransformer2DModel": _Known("transformer", True, _transformer, _for_each_and_size),
}
"""The networks that can denoise, by diffusers' class."""
