"""Mask models: ``mask.yaml``, ``unet`` and ``scheduler`` in ``mask/`` of a bundle or on their own, checked without weights.

It draws class maps of whole slides, conditioned on the slide's subtype (DiffInfinite, section 3.2 and appendix E).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from wsigen.base.classes import ClassTable
from wsigen.base.errors import BundleError, ConfigError, suggest
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.models.bundle import SUFFIXES
from wsigen.models.card import read_config
from wsigen.sampling.schedule import PREDICTIONS
from wsigen.storage.files import sha256_of

FOLDER = "mask"
CARD_NAME = "mask.yaml"

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class MaskCard(Settings):
    """What ``mask.yaml`` holds.

    Attributes
    ----------
    classes:
        Names of the bundle's classes in the order of the network's channels.
    subtypes:
        Names in the order of the network's embeddings; one more embedding stands for "any" (the null condition).
    adjacent:
        Pairs of classes that touched in the training maps; other borders become unknown.
    side:
        Cells per side of the maps it was trained on.
    cell_um:
        um of a cell then.
    smallest:
        Regions of fewer cells are removed.
    guidance, steps:
        w of ``(1 + w) eps(subtype) - w eps(null)`` and DDIM transitions.
    """

    format: Literal[1] = 1
    classes: Names
    subtypes: Names
    adjacent: tuple[tuple[str, str], ...] = ()
    side: Annotated[int, Field(ge=8, le=1024)]
    cell_um: Annotated[float, Field(gt=0)]
    smallest: Annotated[int, Field(ge=1)] = 4
    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 50

    @field_validator("classes", "subtypes")
    @classmethod
    def _own_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        folded = [name.casefold() for name in value]
        for name in folded:
            if folded.count(name) > 1:
                raise ValueError(f"the name {name!r} appears twice")
        return value

    def pairs(self) -> NDArray[np.bool_]:
        """``adjacent`` as bool ``[K, K]`` over the network's channels, symmetric."""
        found = np.eye(len(self.classes), dtype=bool)
        for a, b in self.adjacent:
            i, j = self.classes.index(a), self.classes.index(b)
            found[i, j] = found[j, i] = True
        return found

    def subtype(self, name: str) -> int:
        """Index of a subtype; an unknown one is refused with the known names and the nearest (ConfigError)."""
        for index, known in enumerate(self.subtypes):
            if known.casefold() == name.strip().casefold():
                return index
        near = suggest(name, self.subtypes)
        raise ConfigError(f"unknown subtype {name!r}{near}; in the bundle's mask model: {', '.join(self.subtypes)}")


def find_mask(bundle: Path, table: ClassTable) -> MaskCard | None:
    """The mask model of a bundle, None if it has none (BundleError if it has one that cannot be used)."""
    folder = bundle / FOLDER
    return open_mask(folder, table) if folder.is_dir() else None


def mask_folder(path: Path) -> Path:
    """The folder of a mask model that stands alone: ``path``, or ``mask`` in it (BundleError if neither is one)."""
    for folder in (path, path / FOLDER):
        if (folder / CARD_NAME).is_file():
            return folder
    raise BundleError(f"{path}: no mask model (no {CARD_NAME} there or in {FOLDER}/); give what 'wsigen train mask' wrote")


def open_mask(folder: Path, table: ClassTable) -> MaskCard:
    """Check a mask model by its JSON and YAML alone.

    Parameters
    ----------
    table:
        Of the bundle it draws for, which must know all its classes.

    Raises
    ------
    BundleError
        If it cannot be used: parts missing, pickled weights, numbers or names that disagree.
    """
    card = _read(folder / CARD_NAME)
    _check_names(folder, card, table)
    _check_network(folder, card)
    return card


def mask_hash(folder: Path) -> str:
    """SHA-256 (hex) of what a mask model computes: its card, configs and weights, wherever the folder lies."""
    files = (f for f in folder.rglob("*") if f.suffix in SUFFIXES and f.is_file())
    return sha256_of({f.relative_to(folder).as_posix(): f for f in files})


def _read(file: Path) -> MaskCard:
    content = read_mapping(file, BundleError, "missing; a mask model needs it, or remove the folder", "'key: value' lines")
    return validated(MaskCard, content, str(file), BundleError)


def _check_names(folder: Path, card: MaskCard, table: ClassTable) -> None:
    for name in card.classes:
        try:
            table.index(name)
        except ConfigError as error:
            raise BundleError(f"{folder / CARD_NAME}: {error}") from None
    for name in {name for pair in card.adjacent for name in pair} - set(card.classes):
        raise BundleError(f"{folder / CARD_NAME}: adjacent: {name!r} is not among its classes {', '.join(card.classes)}")


def _check_network(folder: Path, card: MaskCard) -> None:
    unet, scheduler = read_config(folder, "unet"), read_config(folder, "scheduler")
    expected = {
        "_class_name": "UNet2DModel",
        "in_channels": len(card.classes),
        "out_channels": len(card.classes),
        "num_class_embeds": len(card.subtypes) + 1,
    }
    for key, value in expected.items():
        if unet.get(key) != value:
            raise BundleError(f"{folder}: unet {key} is {unet.get(key)}, but {CARD_NAME} needs {value}")
    if scheduler.get("prediction_type", "epsilon") not in PREDICTIONS or "beta_schedule" not in scheduler:
        raise BundleError(f"{folder}: scheduler: needs a beta schedule and one of {', '.join(PREDICTIONS)}")
    if not any((folder / "unet").glob("*.safetensors")):
        raise BundleError(f"{folder / 'unet'}: no *.safetensors weights")
