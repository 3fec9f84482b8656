"""``wsigen models card``: a card for a diffusers folder that has none, checked, and what it could not know."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wsigen.base.errors import BundleError, refusing
from wsigen.models.bundle import check_parts
from wsigen.models.card import CARD_NAME, BundleCard, Rgb, make_card
from wsigen.models.denoisers import find_part, read_architecture
from wsigen.models.derived_card import derived_content
from wsigen.models.network_config import read_config
from wsigen.storage.files import write_atomic

GLASS = ("glass", "background")
"""Names of classes that are taken for bare glass."""

COLOURS: dict[str, Rgb] = {
    "glass": (235, 235, 240),
    "tissue": (200, 100, 160),
    "tumor": (200, 0, 0),
    "stroma": (150, 200, 150),
    "immune cells": (160, 90, 160),
    "necrosis": (50, 50, 50),
}
"""Of common classes, as QuPath shows them."""


@dataclass(frozen=True)
class CardWishes:
    """What a person says of a model; None, or nothing: not said.

    Attributes
    ----------
    classes : tuple of str
        In the order of the model's embeddings or channels.
    background : str or None
        The class that is bare glass.
    mpp : tuple of float
        um/px of the levels, fine to coarse.
    conditioning, prompt : str or None
        As in `card.Conditioning`.
    name, title, licence, not_for : str or None
        As in the card.
    """

    classes: tuple[str, ...] = ()
    background: str | None = None
    mpp: tuple[float, ...] = ()
    conditioning: str | None = None
    prompt: str | None = None
    name: str | None = None
    title: str | None = None
    licence: str | None = None
    not_for: str | None = None


def write_card(folder: Path, wishes: CardWishes, overwrite: bool = False) -> tuple[BundleCard, list[str]]:
    """Write ``wsigen.yaml`` for a folder that diffusers saved.

    Returns
    -------
    card, unknown
        The card, and a line for whatever neither the folder nor the wishes say.

    Raises
    ------
    BundleError
        If there is a card, the folder cannot be used, or its networks do not fit what was said; nothing is written then.
    """
    file = folder / CARD_NAME
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such folder")
    if file.exists() and not overwrite:
        raise BundleError(f"{file}: exists already; edit it, or add --overwrite to write it anew")
    content, unknown = _content(folder, wishes)
    card = make_card(content, str(folder))
    check_parts(folder, card)
    _check_weights_fit(folder)
    notes = "".join(f"# not known: {line}\n" for line in unknown)
    with refusing(BundleError, f"{file}: cannot be written", "let yourself write there, or copy the folder"):
        write_atomic(file, f"{notes}{card_text(card)}".encode())
    return card, unknown


def card_text(card: Any) -> str:
    """A card (a pydantic model) as YAML."""
    return yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _content(folder: Path, wishes: CardWishes) -> tuple[dict[str, Any], list[str]]:
    """What the card holds, and what it does not know."""
    content, vae, (config, network) = derived_content(folder), read_config(folder, "vae"), read_architecture(folder)
    absolute = folder.absolute()
    content |= {"name": wishes.name or absolute.name or "bundle", "title": wishes.title or f"Model of {absolute.name}"}
    content |= {"licence": wishes.licence or "unknown", "not_for": wishes.not_for or "clinical use"}
    content["conditioning"] = {"kind": wishes.conditioning or content["conditioning"]["kind"]}
    if wishes.prompt:
        content["conditioning"]["prompt"] = wishes.prompt
    if wishes.mpp:
        one = len(wishes.mpp) == 1
        content["levels"] = [{"name": "patch" if one else f"{mpp:g} um/px", "mpp": mpp} for mpp in wishes.mpp]
    kind, levels, embedded = content["conditioning"]["kind"], len(content["levels"]), network.embeds
    names = wishes.classes or _stand_ins(kind, (embedded or 1) - network.counts_null, levels)
    content["classes"] = _classes(folder, names, wishes.background)
    side, scale = content["crop_latent"], content["latent"]["std"][0]
    missing = {
        "um/px: give --mpp, or 'wsigen generate --mpp' with every slide": not wishes.mpp,
        f"the classes, for which {', '.join(names)} stand in: give --classes": not wishes.classes,
        "which class is bare glass: give --background": not any(c["background"] for c in content["classes"]),
        "the licence: give --licence": not wishes.licence,
        f"what it was trained on: write training_data into {CARD_NAME}": True,
        f"how large its crops were: {side} latent px are taken; correct crop_latent if need be": not config.get("sample_size"),
        f"the scale of its latents: diffusers' own, a deviation of {scale:.3g}, is taken": not (
            vae.get("scaling_factor") or vae.get("latents_std") or vae.get("_class_name") == "AutoencoderTiny"
        ),
        f"what the last of {embedded} embeddings means: it is taken for 'no condition'": (
            kind == "class-tokens" and network.counts_null
        ),
    }
    return content, [line for line, is_missing in missing.items() if is_missing]


def _stand_ins(kind: str, tokens: int, levels: int) -> tuple[str, ...]:
    """Names of classes that nobody named: as many as the network has tokens for."""
    if kind == "class-tokens":
        return tuple(f"Class {i + 1}" for i in range(max(1, tokens // levels)))
    return ("Glass", "Tissue")


def _classes(folder: Path, names: Sequence[str], background: str | None) -> list[dict[str, Any]]:
    glass = (background.casefold(),) if background else GLASS
    if background and background.casefold() not in [name.casefold() for name in names]:
        raise BundleError(f"{folder}: the background {background!r} is not among the classes {', '.join(names)}; add it")
    return [
        {"name": name, "color": list(_colour(name, i, len(names))), "background": name.casefold() in glass}
        for i, name in enumerate(names)
    ]


def _colour(name: str, index: int, count: int) -> Rgb:
    """That of a common class, else one of as many hues as there are classes."""
    red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(index / count, 0.6, 0.8))
    return COLOURS.get(name.casefold(), (red, green, blue))


def _check_weights_fit(folder: Path) -> None:
    """Compare the networks' configs with their weights (BundleError)."""
    from wsigen.models.loading import check_network

    for part in ("vae", find_part(folder)):
        check_network(folder / part)
