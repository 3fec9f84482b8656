"""Put a trained mask model into a bundle: its folder ``mask/``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from wsigen.classes import ClassTable
from wsigen.errors import ConfigError
from wsigen.layout.cleaning import touching
from wsigen.models.mask_bundle import CARD_NAME, FOLDER, MaskCard
from wsigen.training.mask_maps import MaskExample
from wsigen.training.mask_model import MaskTraining, build_mask_scheduler


def mask_card(
    training: MaskTraining, table: ClassTable, subtypes: Sequence[str], examples: Sequence[MaskExample], **changes: float
) -> MaskCard:
    """Describe a mask model; which classes may touch is read from its training maps.

    Parameters
    ----------
    table, subtypes:
        Names by index, as many as the model was made for (ConfigError otherwise).
    changes:
        ``guidance``, ``steps``, ``smallest`` if not the card's defaults.
    """
    if (len(table), len(subtypes)) != (training.classes, training.subtypes):
        raise ConfigError(
            f"mask model: made for {training.classes} classes and {training.subtypes} subtypes, "
            f"got {len(table)} and {len(subtypes)} names"
        )
    pairs = touching((e.cells for e in examples), len(table))
    names = table.names
    adjacent = [(names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names)) if pairs[i, j]]
    given = {"classes": names, "subtypes": list(subtypes), "adjacent": adjacent}
    return MaskCard.model_validate({**given, "side": training.settings.side, "cell_um": training.settings.cell_um, **changes})


def export_mask(training: MaskTraining, card: MaskCard, bundle: Path) -> None:
    """Write ``bundle/mask`` beside its place and rename it there, replacing an older one."""
    folder = bundle / FOLDER
    beside, old = bundle / f".{FOLDER}.new", bundle / f".{FOLDER}.old"
    for path in (beside, old):
        shutil.rmtree(path, ignore_errors=True)
    training.average.save_pretrained(beside / "unet", safe_serialization=True)
    build_mask_scheduler().save_pretrained(beside / "scheduler")
    text = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (beside / CARD_NAME).write_text(text, encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
