"""Mask models: ``mask.yaml``, ``unet`` and ``scheduler`` in ``mask/`` of a bundle or on their own, checked without weights.

A mask model draws class maps of whole slides, conditioned on the slide's subtype (DiffInfinite, section 3.2 and appendix E).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from wsigen.base.classes import ClassTable
from wsigen.base.errors import BundleError, ConfigError
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.layout.subtypes import choose_subtype
from wsigen.models.bundle import SUFFIXES, check_scheduler, check_weights
from wsigen.models.card import Text, unique_names
from wsigen.models.config_keys import demand_supported
from wsigen.models.flow import is_flow
from wsigen.models.network_config import read_config
from wsigen.storage.files import sha256_of

FOLDER = "mask"
CARD_NAME = "mask.yaml"

Names = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(unique_names)]


class MaskCard(Settings):
    """What ``mask.yaml`` holds.

    Attributes
    ----------
    classes : tuple of str
        Names of the bundle's classes in the order of the network's channels.
    subtypes : tuple of str
        Names in the order of the network's embeddings; one more embedding stands for "any" (the null condition).
    adjacent : tuple of (str, str)
        Pairs of classes that touched in the training maps; other borders become unknown.
    side : int
        Cells per side of the maps it was trained on.
    cell_um : float
        um of a cell then.
    smallest : int
        Regions of fewer cells are removed.
    guidance, steps : float, int
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

    def pairs(self) -> NDArray[np.bool_]:
        """``adjacent`` as bool ``(K, K)`` over the network's channels, symmetric."""
        touch = np.eye(len(self.classes), dtype=bool)
        for a, b in self.adjacent:
            i, j = self.classes.index(a), self.classes.index(b)
            touch[i, j] = touch[j, i] = True
        return touch

    def subtype(self, name: str) -> int:
        """Index of a subtype; an unknown one is refused with the known names and the nearest (ConfigError)."""
        known = {subtype: index for index, subtype in enumerate(self.subtypes)}
        return int(choose_subtype(name, known, "in the bundle's mask model"))


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
    table : ClassTable
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
    unet = read_config(folder, "unet")
    expected = {
        "_class_name": "UNet2DModel",
        "in_channels": len(card.classes),
        "out_channels": len(card.classes),
        "num_class_embeds": len(card.subtypes) + 1,
    }
    for key, value in expected.items():
        if unet.get(key) != value:
            raise BundleError(f"{folder}: unet {key} is {unet.get(key)}, but {CARD_NAME} needs {value}")
    demand_supported(unet, "unet", folder)
    check_scheduler(folder)
    if is_flow(read_config(folder, "scheduler")):
        raise BundleError(f"{folder}: a mask model of flow matching is not supported")
    check_weights(folder, ("unet",))
