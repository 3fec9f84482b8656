"""The denoiser's network and schedule: built, or loaded and made to fit a dataset's classes and levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsigen.base.errors import BundleError, TrainingError
from wsigen.grids.grid import EncoderId
from wsigen.models.card import CARD_NAME, BundleCard, GridCondition, Level, read_card
from wsigen.models.config_keys import demand_supported
from wsigen.training.autoencoder import load_pretrained, load_vae
from wsigen.training.recipes import DenoiserRecipe, LatentRecipe, UNetSettings

if TYPE_CHECKING:
    from diffusers import DDIMScheduler


ENCODING = ("encoder.", "quant_conv.")
"""How the names of the weights of an autoencoder begin that decide its latents."""


def build_unet(settings: UNetSettings, card: BundleCard, side: int, text_width: int = 0) -> nn.Module:
    """Build an untrained denoiser; ``side`` of the crops in latent px, ``text_width`` of the tokens that it attends to."""
    square, multiple = card.patch**2, card.patch * 2 ** (len(settings.channels) - 1)
    if side % multiple:
        raise TrainingError(
            f"crops of {side} latent px: network.channels of {len(settings.channels)} levels need a multiple of {multiple}"
        )
    width = text_width if card.attends else 0
    channels = card.input_channels * square, card.latent.channels * square
    return unet_of(settings, side // card.patch, *channels, embeddings(card), width)


def unet_of(
    settings: UNetSettings, side: int, channels: int, out_channels: int, embedded: int | None, text_width: int = 0
) -> nn.Module:
    """Build a U-Net with attention at its coarsest levels.

    Parameters
    ----------
    side : int
        Of what it is trained on, px of it.
    embedded : int, optional
        Rows of its class embedding.
    text_width : int
        With prompts, or a grid by tokens, of so many numbers a token, it listens to them where it attends; 0: neither.
    """
    from diffusers import UNet2DConditionModel, UNet2DModel

    plain = len(settings.channels) - settings.attention
    cross = "Cross" if text_width else ""
    blocks: dict[str, Any] = {
        "sample_size": side,
        "in_channels": channels,
        "out_channels": out_channels,
        "block_out_channels": settings.channels,
        "layers_per_block": settings.layers,
        "norm_num_groups": settings.norm_groups,
        "down_block_types": ("DownBlock2D",) * plain + (f"{cross}AttnDownBlock2D",) * settings.attention,
        "up_block_types": (f"{cross}AttnUpBlock2D",) * settings.attention + ("UpBlock2D",) * plain,
    }
    if text_width:
        heads = tuple(max(1, c // settings.head_dim) for c in settings.channels)  # diffusers counts heads here
        blocks |= {"attention_head_dim": heads, "cross_attention_dim": text_width, "num_class_embeds": embedded}
        return UNet2DConditionModel(**blocks)
    return UNet2DModel(**blocks, attention_head_dim=settings.head_dim, num_class_embeds=embedded)


def load_unet(folder: Path, card: BundleCard, text_width: int = 0) -> nn.Module:
    """Load the U-Net of a bundle or diffusers folder and make its inputs fit the card (`fit`).

    ``text_width`` is that of the prompts' embeddings, or of a summariser's tokens; 0 without either.

    Raises
    ------
    TrainingError
        If it cannot be loaded, is of the wrong kind for the conditioning, or has other latents or prompts.
    BundleError
        If its config asks for what is not done here.
    """
    import diffusers

    kind, latent_channels = card.conditioning.kind, card.latent.channels
    wanted = diffusers.UNet2DConditionModel if card.attends else diffusers.UNet2DModel
    there = folder / "unet" if (folder / "unet").is_dir() else folder
    try:
        config = dict(wanted.load_config(str(there), local_files_only=True))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{there}: cannot be loaded as {wanted.__name__} ({reason})") from None
    name = config.get("_class_name")
    if name != wanted.__name__:
        why = f"conditioning '{kind}'" if kind == "text" or not card.attends else "a grid told by tokens"
        raise TrainingError(f"{there}: a {name}; {why} needs a {wanted.__name__}")
    demand_supported(config, "unet", there)
    unet: Any = load_pretrained(wanted, there)
    if unet.config["out_channels"] != latent_channels:
        given = unet.config["out_channels"]
        raise TrainingError(f"{there}: made for {given} latent channels, the autoencoder has {latent_channels}")
    width = unet.config.get("cross_attention_dim")
    widths = set(width) if isinstance(width, list | tuple) else {width}  # some say it block by block
    if text_width and widths != {text_width}:
        raise TrainingError(
            f"{there}: listens to tokens of {width} numbers, text encoder or summariser give {text_width}; give 'text' the "
            "folder of the text encoder it was trained with, or the summariser its width"
        )
    fit(unet, card, own_card(folder), there)
    return unet


def own_card(folder: Path) -> BundleCard | None:
    """The card that lies in a folder, None in a plain diffusers folder."""
    return read_card(folder) if (folder / CARD_NAME).is_file() else None


def build_schedule(recipe: LatentRecipe) -> DDIMScheduler:
    """The training schedule: that of ``start``, with what the recipe says otherwise."""
    from diffusers import DDIMScheduler

    start = recipe.start if isinstance(recipe, DenoiserRecipe) else None
    folder = start / "scheduler" if start else None
    if folder is not None and folder.is_dir():
        config = dict(DDIMScheduler.load_config(str(folder), local_files_only=True))
        config.setdefault("prediction_type", "epsilon")
    else:
        config = {"num_train_timesteps": 1000, "prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}
    if recipe.prediction:
        config["prediction_type"] = recipe.prediction
    if recipe.betas:
        config["beta_schedule"] = recipe.betas
    config |= {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler.from_config(config)
    kind = scheduler.config["prediction_type"]
    if kind not in ("epsilon", "v_prediction"):
        raise TrainingError(f"{folder}: prediction_type {kind!r} cannot be trained; set prediction: epsilon or v_prediction")
    if kind == "epsilon" and scheduler.config["rescale_betas_zero_snr"]:
        raise TrainingError(
            f"{folder}: its schedule ends in pure noise (rescale_betas_zero_snr), of which an epsilon prediction says "
            "nothing and which no bundle may hold; set prediction: v_prediction"
        )
    return scheduler


def embeddings(card: BundleCard) -> int | None:
    """Rows of the network's class embedding: tokens, or levels where the network is told the level besides."""
    kind = card.conditioning.kind
    if kind == "class-tokens":
        return len(card.levels) * len(card.classes) + 1
    return None if kind == "text" else len(card.levels)


def latent_scale_of(start: Path, vae: nn.Module) -> NDArray[np.float32] | None:
    """Mean and deviation (2, C) that the network in ``start`` knows its latents by, if these are the autoencoder's ``vae``.

    They are if the parts that encode are equal; decoders may differ (``decoder_only`` of an autoencoder's recipe).
    A plain diffusers folder gets those that `wsigen.generate` derives: ``z = (encode(x) - shift_factor) * scaling_factor``.
    """
    if not (start / "vae").is_dir():
        return None
    try:
        card, own = read_card(start), load_vae(start)
    except (BundleError, TrainingError):  # no whole model, or an autoencoder of another kind
        return None
    return np.array([card.latent.mean, card.latent.std], np.float32) if same_weights(vae, own, ENCODING) else None


def same_weights(network: nn.Module, other: nn.Module, parts: tuple[str, ...] = ("",)) -> bool:
    """Whether two networks have the same weights, compared as float16, as which bundles may store them.

    Parameters
    ----------
    parts : tuple of str
        How the names of those weights begin that are compared.
    """
    a, b = ({k: v for k, v in n.state_dict().items() if k.startswith(parts)} for n in (network, other))
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and torch.equal(a[k].half().cpu(), b[k].half().cpu()) for k in a
    )


def with_known_cells(grid: GridCondition, start: BundleCard | None) -> GridCondition:
    """A grid, its cells standardised as the network of the card ``start`` knows them, if it is told the same numbers."""
    if start is None or start.grid is None or not same_cells(grid, start.grid):
        return grid
    return grid.model_copy(update={"mean": start.grid.mean, "std": start.grid.std})


def same_cells(one: GridCondition, other: GridCondition) -> bool:
    """Whether two networks are told the same numbers of cells by channels: one encoder's, equally many."""
    encoders = (EncoderId(grid.encoder, grid.encoder_sha256) for grid in (one, other))
    return one.channels == other.channels > 0 and next(encoders).agrees(next(encoders))


def fit(unet: Any, card: BundleCard, start: BundleCard | None, folder: Path) -> None:
    """Make a network's inputs and embeddings those of ``card``, in place.

    Classes and levels that its own card ``start`` names too keep what they had learnt, wherever they stood; new classes
    begin as "unknown", new levels as the one nearest in um/px. New inputs begin at weight 0: all without a card, and those of
    a grid of another encoder.

    Raises
    ------
    TrainingError
        If the network sees neither the latents alone nor these and a class map that can be fitted.
    """
    if start is not None and start.conditioning.kind != card.conditioning.kind:
        start = None
    _fit_inputs(unet, card, start, folder)
    fit_embeddings(unet, card, start)


@torch.no_grad()
def _fit_inputs(unet: Any, card: BundleCard, start: BundleCard | None, folder: Path) -> None:
    old, latent, channels = unet.conv_in, card.latent.channels, card.input_channels
    if start is not None and old.in_channels == start.input_channels:
        sources = list(range(latent))
        mapped = card.conditioning.kind == "class-map"
        sources += [latent + i for i in [*_classes_in(card, start), len(start.classes)]] if mapped else []
        told_alike = card.grid is not None and start.grid is not None and same_cells(card.grid, start.grid)
        sources += range(start.input_channels - card.grid.channels, start.input_channels) if told_alike and card.grid else []
    elif old.in_channels == channels:
        return
    elif old.in_channels == latent:
        sources = list(range(latent))
    else:
        raise TrainingError(f"{folder}: its network sees {old.in_channels} channels; {latent} or {channels} are needed")
    new: Any = nn.Conv2d(channels, old.out_channels, old.kernel_size, padding=old.padding)
    new.weight.zero_()  # what it did not see before begins without weight
    new.weight[:, : len(sources)] = old.weight[:, sources]
    new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=channels)


@torch.no_grad()
def fit_embeddings(unet: Any, card: BundleCard, start: BundleCard | None) -> None:
    """Make a network's embeddings those of ``card``, in place; see `fit`."""
    rows = embeddings(card)
    if rows is None:
        return
    sources = None
    if start is not None and unet.config["num_class_embeds"] == embeddings(start):
        sources = _rows_in(card, start)
    elif unet.config["num_class_embeds"] == rows:
        return
    new = nn.Embedding(rows, unet.config["block_out_channels"][0] * 4)
    if sources is None:
        new.weight.zero_()  # added to the time embedding: begins as the network was
    else:
        new.weight.copy_(unet.class_embedding.weight[sources])
    unet.class_embedding = new
    unet.register_to_config(num_class_embeds=rows)


def _rows_in(card: BundleCard, start: BundleCard) -> list[int]:
    """For every row of the embedding, the one of the start's embedding it begins as."""
    levels = [_nearest(level, i, start.levels) for i, level in enumerate(card.levels)]
    if card.conditioning.kind != "class-tokens":
        return levels
    count, null = len(start.classes), len(start.levels) * len(start.classes)
    tokens = [level * count + label if label < count else null for level in levels for label in _classes_in(card, start)]
    return [*tokens, null]


def _classes_in(card: BundleCard, start: BundleCard) -> list[int]:
    """Index of every class of ``card`` among those of ``start``, by name; their number for one it does not have."""
    known = {c.name.casefold(): i for i, c in enumerate(start.classes)}
    return [known.get(c.name.casefold(), len(start.classes)) for c in card.classes]


def _nearest(level: Level, index: int, levels: Sequence[Level]) -> int:
    if level.mpp is None or any(other.mpp is None for other in levels):
        return min(index, len(levels) - 1)
    away = [abs(math.log(level.mpp / other.mpp)) for other in levels if other.mpp is not None]
    return int(np.argmin(away))
